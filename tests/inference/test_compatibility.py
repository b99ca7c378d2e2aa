"""A matcher meets stores that were made for it, or one line says what differs."""

import dataclasses

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.captions.vocabulary import SPECIAL, Vocabulary
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.compatibility import check_inputs
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig

CONFIG = MatcherConfig("tern", {}, InputSizes(regions=6, words=4), "key", "bert", {})


def store(folder, **sizes):
    arrays = {name: ("float32" if size else "int32", (size,) if size else ()) for name, size in sizes.items()}
    writer = StoreWriter(folder, arrays)
    writer.append({name: np.zeros((3, *shape)) for name, (_, shape) in arrays.items()})
    writer.close()
    return FeatureStore(folder)


@pytest.fixture
def stores(tmp_path):
    return store(tmp_path / "regions", features=6, boxes=4), store(tmp_path / "captions", features=4)


def test_what_fits_is_taken(tmp_path, stores):
    check_inputs(tmp_path, CONFIG, *stores)
    ids = store(tmp_path / "ids", token_ids=0)
    for encoder in ("bigru", "bert_finetune"):
        check_inputs(tmp_path, dataclasses.replace(CONFIG, encoder=encoder), stores[0], ids)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sizes": InputSizes(2048, 4)}, ("regions: region", "of 6", "2048")),
        ({"sizes": InputSizes(6, 768)}, ("captions: token", "of 4", "768")),
        ({"encoder": "bigru"}, ("captions: ", "features", "captions.encoder bigru")),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, stores, changes, named):
    with raises_naming(*named):
        check_inputs(tmp_path, dataclasses.replace(CONFIG, **changes), *stores)


def test_ids_of_another_vocabulary_are_named(tmp_path, stores):
    config, ids = dataclasses.replace(CONFIG, encoder="bigru"), store(tmp_path / "ids", token_ids=0)
    Vocabulary([*SPECIAL, "dog", "cat"]).save(tmp_path / "vocabulary.json")
    for words in (None, ["cat", "dog"]):
        if words:
            Vocabulary([*SPECIAL, *words]).save(ids.folder / "vocabulary.json")
        with raises_naming("captions.vocabulary"):
            check_inputs(tmp_path, config, stores[0], ids)
    Vocabulary([*SPECIAL, "dog", "cat"]).save(ids.folder / "vocabulary.json")
    check_inputs(tmp_path, config, stores[0], ids)
