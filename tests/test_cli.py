"""``crossmodal``: what it prints, what it writes, and how it ends on a mistake."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossmodal.captions.vocabulary import Vocabulary
from crossmodal.models.checkpoint import load_matcher

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["<pad>", "<start>", "<end>", "<unk>", "zebra", "apple"]


@pytest.fixture
def published(tmp_path):
    """A VSE-infinity with a BiGRU, in its project's format, with its vocabulary."""

    def gru(size, hidden):
        return torch.nn.GRU(size, hidden, batch_first=True, bidirectional=True).state_dict()

    torch.manual_seed(0)
    image = {"fc": torch.nn.Linear(10, 8), "mlp.layers.0": torch.nn.Linear(10, 4)}
    image |= {"mlp.bns.0": torch.nn.BatchNorm1d(4), "mlp.layers.1": torch.nn.Linear(4, 8)}
    image |= {"gpool.linear": torch.nn.Linear(6, 1, bias=False)}
    weights = {f"module.{name}.{key}": v for name, part in image.items() for key, v in part.state_dict().items()}
    pool = {f"module.gpool.gru.{name}": value for name, value in gru(2, 6).items()}
    pool["module.gpool.linear.weight"] = torch.zeros(1, 6)
    text = {f"module.rnn.{name}": value for name, value in gru(5, 8).items()}
    text["module.embed.weight"] = torch.rand(len(WORDS) + 1, 5)
    opt = argparse.Namespace(precomp_enc_type="basic", no_imgnorm=False, no_txtnorm=False)
    torch.save({"epoch": 1, "model": [weights | pool, text | pool], "opt": opt}, tmp_path / "model_best.pth")
    ids = {word: number for number, word in enumerate(WORDS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"word2idx": ids, "idx2word": dict(enumerate(WORDS)), "idx": 6}))
    return tmp_path


def arguments_of(folder, **changes):
    values = {"--from": "vse_infty", "--vocabulary": folder / "vocab.json", "--out": folder / "matcher"} | changes
    options = [part for name, value in values.items() if value is not None for part in (name, value)]
    return ["import-checkpoint", folder / "model_best.pth", *options]


def test_help_waits_for_nothing():
    code = "import sys\nfrom crossmodal import cli\nsys.argv = ['crossmodal', '--help']\n"
    code += (
        "try:\n    cli.main()\nexcept SystemExit:\n    print({'torch', 'faiss', 'numpy', 'mlflow'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("\nset()\n"), done.stderr


def test_import_writes_a_matcher_folder(run, published):
    code, out, err = run(*arguments_of(published))
    assert (code, err) == (0, "")
    folder = published / "matcher"
    assert out.count("\n") == 1
    for part in ("vse_infty", "region features of 10", "captions.encoder bigru", str(folder)):
        assert part in out
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert Vocabulary.load(folder / "vocabulary.json").ids == {
        word: number for number, word in enumerate([*WORDS, "<mask>"])
    }
    model, config = load_matcher(folder)
    torch.testing.assert_close(model.text.embed.weight.shape, torch.Size([7, 5]))
    assert (config.encoder, config.sizes.regions, config.sizes.words) == ("bigru", 10, 8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"--vocabulary": None}, "model_best.pth: embeds words of its own: give the project's vocabulary"),
        ({"--from": "tern"}, "model_best.pth: has no entry 'img_txt_enc.cap_proj.weight'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, published, changes, expected):
    code, out, err = run(*arguments_of(published, **changes))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert sorted(path.name for path in published.iterdir()) == ["model_best.pth", "vocab.json"]


def test_what_a_cut_off_import_left_is_not_taken_along(run, published):
    (published / "matcher.part").mkdir()
    (published / "matcher.part/vocabulary.json").write_text("of another model")
    (published / "matcher.part/more.bin").write_text("")
    assert run(*arguments_of(published))[0] == 0
    assert not (published / "matcher.part").exists()
    names = sorted(path.name for path in (published / "matcher").iterdir())
    assert names == ["config.json", "model.safetensors", "vocabulary.json"]
