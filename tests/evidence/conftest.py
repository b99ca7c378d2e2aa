"""Data that tests of evidence share."""

import numpy as np
import pytest

from crossmodal.captions.fit import fit_tokenizer
from crossmodal.datasets.records import read_dataset
from crossmodal.features.store import FeatureStore, StoreWriter


@pytest.fixture
def data(tiny_data):
    """The tiny dataset, its regions, and token features with the ids of a tokenizer, which is in the folder bert."""
    dataset = read_dataset(tiny_data / "dataset")
    captions = [caption for record in dataset.records for caption in record.captions]
    tokenizer = fit_tokenizer(captions, 60)
    tokenizer.save_pretrained(tiny_data / "bert")
    writer = StoreWriter(tiny_data / "words", {"features": ("float16", (12,)), "token_ids": ("int32", ())})
    rng = np.random.default_rng(0)
    for caption in captions:
        ids = tokenizer(caption)["input_ids"]
        writer.append({"features": rng.normal(size=(len(ids), 12)), "token_ids": ids})
    writer.close()
    return dataset, FeatureStore(tiny_data / "regions"), FeatureStore(tiny_data / "words")
