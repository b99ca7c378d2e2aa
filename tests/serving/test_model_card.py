"""What a card says of a matcher that was trained here, and of one that was not."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from crossmodal.models.checkpoint import read_config
from crossmodal.serving.session import Folders
from crossmodal.settings.params import load_params
from crossmodal.sharing.model_card import LICENCES, TO_DO, known_of, model_card


@pytest.fixture
def known(workspace):
    """Of vsepp, which the fixture's pipeline evaluated on a dataset that has a licence; not trained by its settings."""
    workspace("vsepp")
    config = read_config(Path("models/matcher"))
    found = known_of(load_params(), Folders(), config)
    assert found.settings is None and found.metrics is not None
    return config, replace(found, dataset=replace(found.dataset, name="flickr30k"))


def card_of(config, known):
    card = ModelCard(model_card(load_params(), config, known, "LOAD"))
    return card.data.to_dict(), " ".join(card.content.split())


def test_of_one_that_was_not_trained_here_no_training_is_claimed(known):
    data, text = card_of(*known)
    assert (data["license"], data["tags"][-1]) == ("other", "vsepp")
    assert TO_DO in text and LICENCES["flickr30k"][1] not in text
    assert "trained on flickr30k" not in text and "epoch" not in text and "| train |" not in text
    assert "Searched on the test split of flickr30k" in text
    assert {result["dataset"]["name"] for result in data["model-index"][0]["results"]} == {"flickr30k"}
    config, found = known
    data, text = card_of(config, replace(found, metrics=None))
    assert "flickr30k" not in text and "model-index" not in data


def test_of_one_that_was_its_data_are_named(known):
    config, found = known
    data, text = card_of(config, replace(found, settings={"seed": 3}))
    assert (data["license"], data["tags"][-1]) == (LICENCES["flickr30k"][0], "flickr30k")
    assert LICENCES["flickr30k"][1] in text and TO_DO not in text
    assert "`vsepp`, trained on flickr30k by" in text and "The epoch was chosen" in text and "| train |" in text
    assert "Seeds: `seed: 3`" in text


def test_an_exported_folder_names_no_training_data_that_are_not_known(workspace, run):
    workspace("vsepp")
    code, out, _ = run("export", "--format", "hub", "shared")
    assert code == 0 and "vsepp, " in out
    assert '"dataset": ""' in Path("shared/crossmodal.json").read_text()
