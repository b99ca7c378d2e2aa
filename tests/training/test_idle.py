"""Settings that come to nothing are named in a warning of the train stage."""

from pathlib import Path

import pytest
import yaml
from assertions import assert_names
from trainers import PARAMS

from crossmodal.settings.params import Params
from crossmodal.training.idle import idle_settings
from stages import train

STILL = {"train": {"epochs": 2, "region_dropout": 0.0, "word_dropout": 0.0, "input_dropout": 0.0}, "model": "vsepp"}
VIEWS = {"loss": {"name": "hinge", "views": 2}}
TRAINED = {"regions": {"backend": "grid"}, "grid": {"trained": 1}}


def settings(*changes):
    content = PARAMS.model_dump()
    for change in (STILL, *changes):
        for key, value in change.items():
            content[key] = content[key] | value if isinstance(value, dict) else value
    return content


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ([{"loss": {"name": "crcl", "label_epochs": 2}}], ["loss.label_epochs 2", "train.epochs 2"]),
        ([{"loss": {"name": "crcl", "label_epochs": 1}}], None),
        ([{"loss": {"name": "infonce", "label_epochs": 12, "all_negatives_epochs": 2}}], None),
        (
            [{"loss": {"name": "hinge", "negatives": "hard", "all_negatives_epochs": 2}}],
            ["loss.all_negatives_epochs 2", "train.epochs 2", "loss.negatives"],
        ),
        ([{"loss": {"name": "hinge", "negatives": "hard", "all_negatives_epochs": 1}}], None),
        ([{"loss": {"name": "hinge", "negatives": "all", "all_negatives_epochs": 2}}], None),
        ([VIEWS], ["loss.views 2", "train.region_dropout", "word_dropout", "input_dropout"]),
        ([VIEWS, {"train": {"word_dropout": 0.1}}], None),
        ([VIEWS, {"train": {"input_dropout": 0.1}}], None),
        ([VIEWS, {"captions": {"encoder": "bert_finetune"}}], None),  # of whose dropout nothing is known
        ([VIEWS, {"captions": {"encoder": "bigru"}, "bigru": {"dropout": 0.4}}], None),
        ([VIEWS, {"captions": {"encoder": "bigru"}, "bigru": {"dropout": 0.0}}], ["loss.views 2"]),
        ([VIEWS, {"model": "esa", "esa": {"dropout": 0.1}}], None),
        ([VIEWS, {"model": "esa", "esa": {"dropout": 0.0}}], ["loss.views 2"]),
        ([VIEWS, {"model": "sgraf", "sgraf": {"dropout": 0.0, "similarity_dropout": 0.1}}], None),
        ([VIEWS, TRAINED], None),  # it crops
        (
            [TRAINED, {"grid_finetune": {"frozen_epochs": 2}}],
            ["grid_finetune.frozen_epochs 2", "train.epochs 2", "grid.trained 1"],
        ),
        ([TRAINED, {"grid_finetune": {"frozen_epochs": 1}}], None),
        ([{"grid_finetune": {"frozen_epochs": 2}}], None),
    ],
)
def test_what_cannot_take_effect_is_named(changes, named):
    found = idle_settings(Params.model_validate(settings(*changes)))
    assert len(found) == bool(named)
    if named:
        assert_names(found[0], *named)


def test_the_stage_warns_and_trains(featured_root, capsys):
    content = settings({"loss": {"name": "hinge", "negatives": "hard", "all_negatives_epochs": 2}})
    content["train"] |= {"batch_size": 8, "warmup_steps": 0}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    train.main()
    err = capsys.readouterr().err
    assert err.count("warning: loss.all_negatives_epochs 2") == 1
    assert Path("models/matcher/model.safetensors").is_file()
