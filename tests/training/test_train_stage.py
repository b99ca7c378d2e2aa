"""The train stage in two processes: what a person starts, and what it leaves."""

import csv
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import raises_naming
from safetensors.torch import load_file
from trainers import KilledError
from transformers import BertConfig, BertModel

from crossmodal.captions.vocabulary import SPECIAL, Vocabulary
from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import caption_images
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.settings.params import load_params
from crossmodal.training.loop import Trainer
from crossmodal.training.validation import validate
from stages import train

ROOT = Path(__file__).resolve().parents[2]


def write_params(folder, model, **changes):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["model"] = model
    params[model]["embed_dim"] = 16
    params["train"] |= {"epochs": 3, "batch_size": 9, "warmup_steps": 2}
    for key, value in changes.items():
        section, name = key.split("__")
        params[section][name] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run_stage(folder, *command):
    environment = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = command or (sys.executable, "-m", "stages.train")
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def results(folder):
    with (folder / "models/matcher/history.csv").open() as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return load_file(folder / "models/matcher/model.safetensors"), history


@pytest.mark.parametrize(
    ("model", "changes", "validations"),
    [("vsepp", {}, 3), ("vsepp", {"train__ema": 0.5}, 3), ("sgraf", {"sgraf__module": "sgraf"}, 7)],
)
def test_the_kept_epoch_is_validated_once(featured_root, monkeypatch, capsys, model, changes, validations):
    """An ensemble's members are validated each, and all of them together."""
    found = []

    def counted(*arguments):
        found.append(validate(*arguments))
        return found[-1]

    for module in ("crossmodal.training.loop", "stages.train"):
        monkeypatch.setattr(f"{module}.validate", counted)
    write_params(featured_root, model, **changes)
    train.main()
    assert len(found) == validations
    best = max(row["rsum"] for row in found) if model == "vsepp" else found[-1]["rsum"]
    assert f"validation rsum {best:.1f}, " in capsys.readouterr().out


@pytest.mark.parametrize(("model", "runs"), [("tern", True), ("sgraf", False)])
def test_one_training_image(featured_root, capsys, model, runs):
    """Batch norms have no variance of one value; nothing else needs a second image. One caption, one of validation."""
    few(featured_root)
    write_params(featured_root, model)
    if not runs:
        with pytest.raises(SystemExit, match="2"):
            train.main()
        assert "train.batch_size: a batch has 1 image of 3 regions" in capsys.readouterr().err
        return
    train.main()
    weights, history = results(featured_root)
    assert [row["rsum"] for row in history] == [600, 600, 600]
    assert all(value.isfinite().all() for value in weights.values())


def few(folder):
    """One image of each split, with one caption."""
    shutil.rmtree(folder / "data")
    (folder / "data/dataset").mkdir(parents=True)
    records = [ImageRecord(split, f"{split}.jpg", split, 8, 8, ("a word",)) for split in ("train", "val", "test")]
    write_dataset(folder / "data/dataset", "few", records)
    regions = StoreWriter(folder / "data/regions", {"features": ("float16", (12,)), "boxes": ("float32", (4,))})
    words = StoreWriter(folder / "data/captions", {"features": ("float16", (12,)), "token_ids": ("int32", ())})
    rng = np.random.default_rng(0)
    for _ in records:
        regions.append({"features": rng.normal(size=(3, 12)), "boxes": np.array([[0, 0, 1, 1]] * 3)})
        words.append({"features": rng.normal(size=(2, 12)), "token_ids": np.arange(2)})
    regions.close()
    words.close()


@pytest.mark.slow
def test_two_processes_publish_the_model_of_one(featured_root):
    write_params(featured_root, "vsepp")
    train.main()
    weights, history = results(featured_root)
    write_params(featured_root, "vsepp", train__devices=2)
    done = run_stage(featured_root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train: vsepp") == 1
    assert "Traceback" not in done.stderr
    shared_weights, shared_history = results(featured_root)
    for name, values in weights.items():
        assert (shared_weights[name] - values).abs().max() < 1e-4
    for ours, theirs in zip(shared_history, history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert not [path for path in (featured_root / ".resume/train").iterdir() if path.is_dir()]
    with sqlite3.connect(featured_root / "mlflow.db") as database:  # the first process's run alone
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]


@pytest.mark.parametrize("mismatched", [0.0, 0.5])
def test_the_first_training_images_alone(featured_root, mismatched):
    """Their captions and all of the validation split; wrong pairs are drawn among them."""
    write_params(featured_root, "vsepp", train__training_images=5, train__mismatched=mismatched)
    dataset, regions, words = (
        read_dataset(Path("data/dataset")),
        FeatureStore(Path("data/regions")),
        FeatureStore(Path("data/captions")),
    )
    data = train.training_data(load_params(), dataset, regions, words, None)
    images = [row for row, record in enumerate(dataset.records) if record.split == "train"][:5]
    captions = [row for row, image in enumerate(caption_images(dataset)) if image in images]
    assert list(data.train.images) == images
    assert list(data.train.captions) == captions
    assert set(data.caption_image[captions]) <= set(images)
    assert list(data.val.images) == [row for row, record in enumerate(dataset.records) if record.split == "val"]


def test_more_training_images_than_there_are(featured_root):
    """All 24 are no error, by their number or by 0."""
    dataset = read_dataset(Path("data/dataset"))
    regions, words = FeatureStore(Path("data/regions")), FeatureStore(Path("data/captions"))
    for count in (0, 24):
        write_params(featured_root, "vsepp", train__training_images=count)
        assert len(train.training_data(load_params(), dataset, regions, words, None).train.images) == 24
    write_params(featured_root, "vsepp", train__training_images=25)
    with raises_naming("train.training_images 25", "24 images"):
        train.training_data(load_params(), dataset, regions, words, None)


@pytest.mark.slow
def test_published_settings_reach_the_training(featured_root):
    """A BiGRU whose words are masked, nDCG on the first images of the validation split."""
    folder = featured_root / "data/captions"
    shutil.rmtree(folder)
    writer = StoreWriter(folder, {"token_ids": ("int32", ())})
    for row in range(80):
        writer.append({"token_ids": np.array([1, 4 + row % 6, 5, 2])})
    writer.close()
    Vocabulary([*SPECIAL, *"abcdef"]).save(folder / "vocabulary.json")
    changes = {"word_dropout": 0.2, "word_dropout_kind": "words", "best": "ndcg", "validation_images": 4}
    changes = {f"train__{key}": value for key, value in changes.items()}
    write_params(
        featured_root, "vse_infty", captions__encoder="bigru", bigru__hidden=16, vse_infty__word_map="none", **changes
    )
    train.main()
    weights, history = results(featured_root)
    assert weights["text.embed.weight"].shape[0] == len(SPECIAL) + 6 + 1  # <mask>
    assert "caption_map.weight" not in weights
    for row in history:
        assert row["kept_by"] == row["t2i/ndcg25"]
        assert row["i2t/r1"] % 25 == 0 and row["t2i/r1"] % 12.5 == 0  # of 4 images and 8 captions
        assert row["t2i/r5"] == 100


def write_bert(seed):
    """A BERT of random weights in models/bert."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertModel(BertConfig(vocab_size=20, **sizes), add_pooling_layer=False)
    bert.save_pretrained("models/bert")


@pytest.mark.parametrize(("bert", "begins"), [(1, 2), (2, 0)])
def test_only_a_training_on_the_same_bert_resumes(featured_root, monkeypatch, bert, begins):
    """Of the same settings and captions, whose ids do not say what BERT holds."""
    shutil.rmtree(featured_root / "data/captions")
    writer = StoreWriter(Path("data/captions"), {"token_ids": ("int32", ())})
    for row in range(80):
        writer.append({"token_ids": np.array([2, 5 + row % 10, 6 + row % 9, 3])})
    writer.close()
    write_params(featured_root, "vsepp", captions__encoder="bert_finetune")
    write_bert(1)
    save, load, begun = Trainer._save, Trainer._load, []

    def killed_after_two_epochs(trainer):
        save(trainer)
        if trainer.state.epoch == 2:
            raise KilledError

    def noted(trainer):
        load(trainer)
        begun.append(trainer.state.epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", killed_after_two_epochs)
        with pytest.raises(KilledError):
            train.main()
    monkeypatch.setattr(Trainer, "_load", noted)
    write_bert(bert)
    train.main()
    assert begun == [begins]


@pytest.mark.slow
def test_torchrun_decides_how_many(featured_root):
    """Two processes although train.devices is 1; each on its own would print a line."""
    write_params(featured_root, "vsepp", train__epochs=1)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = run_stage(featured_root, *launcher, "-m", "stages.train")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train: vsepp") == 1
    assert (featured_root / "models/matcher/model.safetensors").is_file()
