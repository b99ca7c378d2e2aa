"""Names of regions in shards of vectors, of a detector that knows all, some or none of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from crossmodal.features.named import class_names
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.regions.extraction.extract import region_arrays
from crossmodal.serving.embedding.shards import ShardMaker, _Found


@pytest.mark.parametrize(
    ("known", "expected"),
    [(["cat", "dog", "bird"], ["", "bird", ""]), ([], ["", "", ""]), (["cat"], ["", "", ""])],
)
def test_a_class_without_a_name_is_called_nothing(tmp_path, known, expected):
    writer = StoreWriter(tmp_path, region_arrays(4))
    row = {"features": np.ones((3, 4)), "boxes": np.zeros((3, 4)), "scores": np.ones(3)}
    numbers = {"classes": np.array([-1, 2, 7]), "attributes": np.full(3, -1)}
    writer.append(row | numbers)
    writer.close({"backend": "bottomup", "classes": known, "attributes": []})
    store = FeatureStore(tmp_path)
    assert class_names(store, 0) == expected
    found = _Found(store=store, vectors=[np.ones(4)], rows={"key": 0}, sizes={"key": (5, 5)})
    maker = SimpleNamespace(recipe=SimpleNamespace(sets=False))
    assert ShardMaker._row(maker, "key", found)["classes"] == expected
