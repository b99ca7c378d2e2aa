"""Batches of regions and words are the stored values, in float32 and side by side."""

import numpy as np
import pytest
import torch

from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore, StoreWriter

SIZE = 3
ROWS = np.array([4, 1, 4, 0])


@pytest.fixture
def rows():
    """Halves of all sizes, subnormal and infinite ones among them, in rows of 1 to 5 items."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.random.default_rng(0).permutation(halves[~np.isnan(halves)])[: 5 * 5 * SIZE].reshape(5, 5, SIZE)
    halves[4, :2] = [[np.inf, -np.inf, -0.0], [5.96e-08, 65504, 6.1e-05]]
    return [values[:items] for values, items in zip(halves, (3, 1, 4, 2, 5), strict=True)]


@pytest.fixture
def stored(tmp_path, rows):
    def write(*names):
        every = {"features": ("float16", (SIZE,)), "boxes": ("float32", (4,)), "token_ids": ("int32", ())}
        writer = StoreWriter(tmp_path / "store", {name: every[name] for name in names})
        for values in rows:
            items = np.arange(len(values))
            row = {"features": values, "boxes": np.tile(items[:, None] / 10, 4), "token_ids": 7 + items}
            writer.append({name: row[name] for name in names})
        writer.close()
        return FeatureStore(tmp_path / "store")

    return write


def by_loop(rows, wanted):
    """Row by row, value by value, as Python reads a half."""
    batch = np.zeros((len(wanted), max(len(rows[row]) for row in wanted), SIZE), dtype=np.float32)
    for place, row in enumerate(wanted):
        for item, values in enumerate(rows[row]):
            batch[place, item] = [float(value) for value in values]
    return batch


def test_regions_against_a_loop(stored, rows):
    batch = read_regions(stored("features", "boxes"), ROWS)
    assert batch.features.dtype == batch.boxes.dtype == torch.float32
    assert batch.features.numpy().tobytes() == by_loop(rows, ROWS).tobytes()
    assert batch.mask.sum(1).tolist() == [5, 1, 5, 3]
    assert batch.boxes[0, :, 2].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert not batch.features[~batch.mask].any() and not batch.boxes[~batch.mask].any()


@pytest.mark.parametrize("count", [15, 16, 17, 40])
def test_more_rows_than_are_converted_at_once(stored, rows, count):
    wanted = np.random.default_rng(count).integers(len(rows), size=count)
    batch = read_regions(stored("features"), wanted)
    assert batch.features.numpy().tobytes() == by_loop(rows, wanted).tobytes()


def test_a_batch_is_its_own(stored, rows):
    store = stored("features")
    first = read_regions(store, ROWS)
    first.features.zero_()
    np.testing.assert_array_equal(read_regions(store, ROWS).features, by_loop(rows, ROWS))


def test_words_against_a_loop(stored, rows):
    words = read_words(stored("features", "token_ids"), ROWS)
    assert words.features.numpy().tobytes() == by_loop(rows, ROWS).tobytes()
    assert words.ids is None
    assert words.mask.sum(1).tolist() == [5, 1, 5, 3]


def test_words_without_features_are_ids(stored):
    words = read_words(stored("token_ids"), ROWS)
    assert words.features is None and words.ids.dtype == torch.int64
    assert words.ids[3].tolist() == [7, 8, 9, 0, 0]


def test_dropped_words_leave_no_gap(stored):
    drop = {"keep": np.random.default_rng(0), "drop": 0.5}
    words = read_words(stored("token_ids"), np.repeat(4, 200), **drop)
    for ids, mask in zip(words.ids, words.mask, strict=True):
        kept = ids[mask].tolist()
        assert kept == sorted(kept) and kept[0] == 7 and mask[: len(kept)].all()
    assert 2 < words.mask.sum(1).float().mean() < 4
