"""The bert stage with captions of a file besides the training captions."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from crossmodal.datasets.records import ImageRecord, write_dataset
from crossmodal.settings.derived import run_settings, settings_in_use
from crossmodal.settings.params import load_params
from stages import bert, settings

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"source": "fit", "hidden_size": 16, "heads": 2, "fit_layers": 1, "epochs": 1, "batch_size": 4}


def write_captions(rows):
    lines = "".join(json.dumps({"image": name, "captions": captions}) + "\n" for name, captions in rows)
    Path("further.jsonl").write_text(lines)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [("train", "one red ring"), ("val", "two green rings"), ("test", "three blue rings")]
    records = [
        ImageRecord(f"100{n}_abcdef0123", f"images/100{n}.jpg", split, 8, 8, (text, f"{text} again"))
        for n, (split, text) in enumerate(texts)
    ]
    (tmp_path / "data/dataset").mkdir(parents=True)
    write_dataset(tmp_path / "data/dataset", "flickr8k", records)
    return tmp_path


def run(**changes):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["bert"] |= SMALL | changes
    Path("params.yaml").write_text(yaml.safe_dump(content))
    settings.main()
    bert.main()
    return json.loads(Path("models/bert/tokenizer.json").read_text())["model"]["vocab"].keys()


def test_it_reads_the_file_and_nothing_of_val_and_test(workspace, capsys):
    assert "snow" not in run()
    own = ["ONE red ring!", "One red ring again", "one, red ring"]  # of the training photograph
    write_captions(
        [("9001.jpg", ["white snow", "Two green rings.", "Sun."]), ("1002.jpg", ["dusk", "Dark."]), ("1000.jpg", own)]
    )
    words = run(captions="further.jsonl", objective="pairs")
    assert {"ring", "white", "snow"} <= words
    assert not {"two", "green", "three", "blue", "dusk"} & words
    said = capsys.readouterr().out.partition(" adds ")[2]
    assert re.findall(r"\d+", said)[:4] == ["2", "2", "1", "3"]


def test_another_file_of_the_same_name_is_another_setting(workspace):
    """For DVC by the file in data/settings, for a killed fit by the key of its folder, for MLflow by both."""
    write_captions([("9001.jpg", ["white snow"])])
    assert "snow" in run(captions="further.jsonl")
    before, params = Path("data/settings/bert.json").read_text(), load_params(Path("params.yaml"))
    run_before = run_settings(params)
    write_captions([("9001.jpg", ["yellow sand"])])
    assert "snow" not in run(captions="further.jsonl")
    assert Path("data/settings/bert.json").read_text() != before
    assert run_settings(params) != run_before
    Path("further.jsonl").unlink()  # a machine that has the encoder alone
    assert settings_in_use(params)["bert"]["captions_sha256"] is None


def test_the_objective_and_the_precision_count(workspace):
    write_captions([("9001.jpg", ["white snow", "a field of snow"])])
    weights = []
    for changes in ({}, {"objective": "pairs"}, {"objective": "pairs", "precision": "bf16"}):
        run(captions="further.jsonl", **changes)
        weights.append(load_file("models/bert/model.safetensors")["embeddings.word_embeddings.weight"])
    assert not weights[0].equal(weights[1])
    assert weights[1].dtype == weights[2].dtype == torch.float32
    torch.testing.assert_close(weights[1], weights[2], atol=0.02, rtol=0)


def test_a_file_that_is_not_there(workspace, capsys):
    with pytest.raises(SystemExit) as error:
        run(captions="nowhere.jsonl")
    assert error.value.code == 2
    assert "bert.captions" in (said := capsys.readouterr().err)
    assert "no such file" in said


def test_no_setting_of_the_file_counts_for_a_published_bert(workspace):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    found = []
    for changes in ({}, {"captions": "further.jsonl", "objective": "pairs", "precision": "bf16"}):
        content["bert"] |= {"source": "somewhere"} | changes
        Path("params.yaml").write_text(yaml.safe_dump(content))
        found.append(settings_in_use(load_params(Path("params.yaml")))["bert"])
    assert found[0] == found[1]
