"""A training says how the machine lets it run."""

import sqlite3
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from pretended_device import pretended
from trainers import PARAMS, SIZES, data_of, trainer_of

from crossmodal import runtime
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text
from crossmodal.training import loop
from crossmodal.training.choices import attention_kernel, choices_of
from crossmodal.training.feed import with_features
from crossmodal.training.processes import Processes
from stages import train

CPU, GPU = torch.device("cpu"), torch.device("pretended", 0)
BERT = {"model_type": "bert", "vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_on_the_cpu(tiny_data):
    choices = choices_of(trainer_of(data_of(tiny_data), tiny_data / "r"))
    assert choices.tags() == {
        "used.device": "cpu",
        "used.precision": "fp32",
        "used.tf32": "False",
        "used.features": "host",
        "used.workers": "0",
        "used.compiled": "False",
        "used.attention": "math",
    }
    assert str(choices) == (
        "on cpu in fp32; region features read from their files; no loading processes; torch.compile off; "
        "attention kernel: math"
    )
    on_gpu = replace(choices, device="cuda:0 (GPU)", precision="bf16", tf32=True, features="device", workers=1)
    assert str(on_gpu).startswith(
        "on cuda:0 (GPU) in bf16, the rest in tf32; region features kept on the device; 1 loading process; "
    )


@pytest.mark.parametrize(("precision", "used"), [("tf32", {"tf32"}), ("fp32", {"ieee"})])
def test_on_a_gpu_tf32_is_of_training_steps_alone(tiny_data, monkeypatch, precision, used):
    """Validation's products are those of evaluation."""
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: True)
    seen = {"step": set(), "validation": set()}

    def watched(part, original, *arguments):
        seen[part].add(torch.backends.cuda.matmul.fp32_precision)
        return original(*arguments)

    monkeypatch.setattr(loop.Schedule, "step", lambda own, step=loop.Schedule.step: watched("step", step, own))
    monkeypatch.setattr(loop, "validate", partial(watched, "validation", loop.validate))
    with pretended():
        data = with_features(data_of(tiny_data), "auto", GPU)
        changes = {"model": "vsepp", "epochs": 1, "batch_size": 24, "precision": precision}
        trainer = trainer_of(data, tiny_data / "r", processes=Processes(GPU), **changes)
        trainer.fit(lambda metrics, step: None)
        tags = choices_of(trainer).tags()
    assert seen["step"] == used
    assert "tf32" not in seen["validation"]
    assert tags["used.tf32"] == str(precision == "tf32")
    assert (tags["used.features"], tags["used.attention"]) == ("device", "none")


def test_attention():
    def of(name, device, **changes):
        make = partial(build_text, "bert_finetune", {"config": BERT}) if changes.pop("bert", False) else None
        settings = getattr(PARAMS, name).model_copy(update=changes)
        return attention_kernel(build_model(name, settings, SIZES, *[make] * (make is not None)), device)

    assert of("tern", CPU) == "math"
    assert of("tern", GPU) == "efficient"
    assert of("tern", CPU, visual_layers=0, text_layers=0, layers=0) == "none"
    assert of("tern", CPU, visual_layers=0, text_layers=0, layers=0, bert=True) == "torch"
    assert of("vsepp", GPU) == "none"
    assert of("vsepp", GPU, bert=True) == "efficient"


def test_the_stage_prints_and_tracks_it(featured_root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    params = PARAMS.model_dump(mode="json")
    params["model"] = "vsepp"
    params["train"] |= {"epochs": 1, "batch_size": 24}
    (featured_root / "params.yaml").write_text(yaml.safe_dump(params))
    train.main()
    assert "train: on cpu in fp32;" in capsys.readouterr().out
    with sqlite3.connect("mlflow.db") as store:
        tags = dict(store.execute("SELECT key, value FROM tags WHERE key LIKE 'used.%'"))
    assert len(tags) == 7
    assert tags["used.features"] == "host"
