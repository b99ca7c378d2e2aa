"""Batches of regions and words are the stored values, in float32 and side by side."""

from collections import Counter

import numpy as np
import pytest
import torch

from crossmodal.features.batches import TokenTable, read_regions, read_words
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
        assert kept == sorted(kept) and (kept[0], kept[-1]) == (7, 11) and mask[: len(kept)].all()
        assert len(kept) > 2  # never all between the first and the last
    assert 3 < words.mask.sum(1).float().mean() < 4


COUNT = 20000
CLS, SEP, MASK, VOCABULARY = 0, 1, 2, 1000
FIRST, PIECE = 100, 500  # ids from which words and pieces that go on with them begin
TABLE = TokenTable(np.arange(VOCABULARY) >= PIECE, MASK, ends=True)


def captions_of(tmp_path, *caption):
    writer = StoreWriter(tmp_path / "captions", {"token_ids": ("int32", ()), "features": ("float16", (1,))})
    writer.append({"token_ids": np.array(caption), "features": np.array(caption)[:, None]})
    writer.close()
    store = FeatureStore(tmp_path / "captions")
    ids = FeatureStore(tmp_path / "captions")
    del ids.arrays["features"]
    return store, ids


def dropped(store, table):
    """Captions of one store row, words dropped: lists of ids or of features."""
    words = read_words(store, np.zeros(COUNT, dtype=int), np.random.default_rng(0), 0.2, table)
    values = words.ids if words.features is None else words.features[..., 0].long()
    return [row[mask].tolist() for row, mask in zip(values, words.mask, strict=True)]


def test_words_are_dropped_as_vse_infinity_does(tmp_path):
    """What its published code does to captions of ten words: see its lib/datasets/image_caption.py."""
    caption = [CLS, *range(FIRST, FIRST + 10), SEP]
    rows = dropped(captions_of(tmp_path, *caption)[1], TABLE)
    assert all((row[0], row[-1]) == (CLS, SEP) for row in rows)
    inner = [row[1:-1] for row in rows]
    assert np.mean([len(row) for row in rows]) / 12 == pytest.approx(0.93, abs=0.005)
    masks = sum(word == MASK for row in inner for word in row) / (10 * COUNT)
    kept = sum(word in caption for row in inner for word in row) / (10 * COUNT)
    gone = sum(10 - len(row) for row in inner) / (10 * COUNT)
    assert (masks, kept, gone) == (
        pytest.approx(0.1, abs=0.003), pytest.approx(0.8, abs=0.003), pytest.approx(0.08, abs=0.003),
    )  # fmt: skip
    assert 1 - masks - kept - gone == pytest.approx(0.02, abs=0.002)  # another word
    assert np.mean([row == caption for row in rows]) == pytest.approx(0.8**10, abs=0.007)
    others = [word for row in inner for word in row if word not in caption and word != MASK]
    assert np.mean(others) == pytest.approx(VOCABULARY / 2, abs=20)


def test_the_pieces_of_a_word_share_its_lot(tmp_path):
    """A word of three pieces is whole, three masks, replaced without a piece of its own, or gone."""
    word, lots, mixed = [FIRST, PIECE, PIECE + 1], Counter(), []
    for row in dropped(captions_of(tmp_path, CLS, *word, FIRST + 1, SEP)[1], TABLE):
        inner = row[1:-1]
        assert (row[0], row[-1]) == (CLS, SEP)
        assert len(inner) in (1, 3, 4)  # without the long word, without the short one, with both
        if len(inner) == 1:
            lots["gone"] += 1
            continue
        own = [piece == stored for piece, stored in zip(inner[:3], word, strict=True)]
        masks = [piece == MASK for piece in inner[:3]]
        if any(own) != all(own) or any(masks) != all(masks):
            mixed.append(inner)
        lots["whole" if all(own) else "masked" if all(masks) else "replaced"] += 1
    assert len(mixed) <= 1e-3 * COUNT  # an id that is drawn may be that of a piece: 6 in VOCABULARY of the replaced
    shares = [lots[name] / COUNT for name in ("whole", "masked", "gone", "replaced")]
    assert shares == pytest.approx([0.8, 0.1, 0.08, 0.02], abs=0.01)


def test_frozen_features_lose_whole_words_alone(tmp_path):
    caption = [CLS, FIRST, PIECE, FIRST + 1, FIRST + 2, PIECE, PIECE + 1, SEP]
    rows = dropped(captions_of(tmp_path, *caption)[0], TABLE)
    assert {len(row) for row in rows} <= {3, 4, 5, 6, 7, 8}
    assert all(not set(row) - set(caption) and row == sorted(row, key=caption.index) for row in rows if len(row) < 4)
    assert all((FIRST in row) == (row[1:3] == [FIRST, PIECE]) for row in rows)
    assert np.mean([FIRST + 1 in row for row in rows]) == pytest.approx(0.8, abs=0.015)


def test_start_and_end_of_a_bigru_are_words(tmp_path):
    table = TokenTable(np.zeros(VOCABULARY, dtype=bool), MASK, ends=False)
    caption = [CLS, *range(FIRST, FIRST + 10), SEP]
    rows = dropped(captions_of(tmp_path, *caption)[1], table)
    assert np.mean([row[0] == CLS for row in rows]) == pytest.approx(0.8, abs=0.01)
    assert np.mean([row[-1] == SEP for row in rows]) == pytest.approx(0.8, abs=0.01)
    assert np.mean([len(row) for row in rows]) / 12 == pytest.approx(0.92, abs=0.005)
