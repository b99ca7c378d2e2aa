"""The feature store gives back what was written, and refuses what is not whole."""

import errno
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.features import store
from crossmodal.features.store import FeatureStore, StoreWriter

ARRAYS = {"features": ("float16", (4,)), "boxes": ("float32", (4,)), "scores": ("float32", ())}


def random_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "features": rng.normal(size=(n, 4)).astype(np.float16),
            "boxes": rng.random((n, 4)).astype(np.float32),
            "scores": rng.random(n).astype(np.float32),
        }
        for n in rng.integers(1, 6, count)
    ]


def write(folder, rows, metadata=None):
    writer = StoreWriter(folder, ARRAYS)
    for row in rows:
        writer.append(row)
    writer.close(metadata)


@pytest.mark.parametrize("shard_rows", [1, 3, 100])
def test_round_trip(tmp_path, monkeypatch, shard_rows):
    monkeypatch.setattr(store, "SHARD_ROWS", shard_rows)
    rows = random_rows(10)
    write(tmp_path, rows, {"backend": "grid"})
    read = FeatureStore(tmp_path)
    assert len(read) == 10
    assert read.metadata == {"backend": "grid"}
    for number, row in enumerate(rows):
        for name, values in row.items():
            np.testing.assert_array_equal(read.read(number, name), values)


def test_padded_batch_against_a_loop(tmp_path):
    rows = random_rows(8)
    write(tmp_path, rows)
    read = FeatureStore(tmp_path)
    wanted = np.array([5, 0, 5, 7])
    batch = read.padded(wanted, "features")
    longest = max(len(rows[row]["features"]) for row in wanted)
    assert batch.shape == (4, longest, 4)
    for place, row in enumerate(wanted):
        values = rows[row]["features"]
        np.testing.assert_array_equal(batch[place, : len(values)], values)
        assert not batch[place, len(values) :].any()


def test_contiguous_and_the_same_bytes(tmp_path):
    rows = random_rows(5)
    for name in ("a", "b"):
        write(tmp_path / name, rows)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    with h5py.File(tmp_path / "a" / "00000.h5") as file:
        assert file["features"].chunks is None
        assert file["features"].dtype == np.float16


def test_a_shard_is_what_hdf5_writes_to_a_disk(tmp_path):
    """It is made in memory; the file is the same."""
    rows = random_rows(9)
    write(tmp_path / "store", rows)
    with h5py.File(tmp_path / "plain.h5", "w", track_order=False) as file:
        file.create_dataset("lengths", data=np.array([len(row["scores"]) for row in rows], dtype=np.int32))
        for name in ARRAYS:
            file.create_dataset(name, data=np.concatenate([row[name] for row in rows]))
    assert (tmp_path / "store" / "00000.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_shard_is_written_again(tmp_path, monkeypatch, size):
    """With those behind it."""
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    rows = random_rows(6)
    write(tmp_path / "whole", rows)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shard = tmp_path / "cut" / "00001.h5"
    shard.write_bytes(shard.read_bytes()[:size])
    writer = StoreWriter(tmp_path / "cut", ARRAYS)
    assert len(writer) == 2
    for row in rows[2:]:
        writer.append(row)
    writer.close()
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_goes_on_behind_whole_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    rows = random_rows(7)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, rows)
    writer = StoreWriter(cut, ARRAYS)
    for row in rows[:5]:
        writer.append(row)  # two shards are on disk, row 4 is lost
    (cut / "00002.part").write_bytes(b"half a shard")
    again = StoreWriter(cut, ARRAYS)
    assert len(again) == 4
    for row in rows[len(again) :]:
        again.append(row)
    again.close()
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        assert path.read_bytes() == (cut / path.name).read_bytes()


def test_a_disk_that_is_full_leaves_no_half_index(tmp_path, monkeypatch):
    """By the index, a worker's part of an extraction counts as done."""
    rows = random_rows(5)
    writer = StoreWriter(tmp_path, ARRAYS)
    for row in rows:
        writer.append(row)
    writer.flush()

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            writer.close()
    assert not (tmp_path / "index.json").exists()
    again = StoreWriter(tmp_path, ARRAYS)
    assert len(again) == 5
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.h5", "index.json"]
    np.testing.assert_array_equal(FeatureStore(tmp_path).read(4, "boxes"), rows[4]["boxes"])


def test_rows_of_another_shape_are_refused(tmp_path):
    writer = StoreWriter(tmp_path, ARRAYS)
    row = random_rows(1)[0]
    with pytest.raises(ValueError, match="features"):
        writer.append({**row, "features": np.zeros((2, 5))})
    with pytest.raises(ValueError, match="differ"):
        writer.append({**row, "scores": np.zeros(99)})


def break_missing_index(folder):
    (folder / "index.json").unlink()


def break_index_syntax(folder):
    (folder / "index.json").write_text("{")


def break_index_entry(folder):
    index = json.loads((folder / "index.json").read_text())
    del index["shards"][0]["rows"]
    (folder / "index.json").write_text(json.dumps(index))


def break_missing_shard(folder):
    (folder / "00000.h5").unlink()


def break_truncated_shard(folder):
    path = folder / "00000.h5"
    path.write_bytes(path.read_bytes()[:-200])


def break_not_hdf5(folder):
    (folder / "00000.h5").write_bytes(b"hello")


def break_row_count(folder):
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["rows"] += 1
    (folder / "index.json").write_text(json.dumps(index))


def break_chunked(folder):
    path = folder / "00000.h5"
    with h5py.File(path, "a") as file:
        values = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=values, chunks=(1, 4))


@pytest.mark.parametrize(
    ("damage", "file", "named"),
    [
        (break_missing_index, "index.json", ["not found"]),
        (break_index_syntax, "index.json", ["JSON"]),
        (break_index_entry, "index.json", ["shards.0.rows"]),
        (break_missing_shard, "00000.h5", ["not found", "index.json"]),
        (break_truncated_shard, "00000.h5", ["unreadable"]),
        (break_not_hdf5, "00000.h5", ["unreadable"]),
        (break_row_count, "00000.h5", ["lengths", "(5,)", "index.json", "6 rows"]),
        (break_chunked, "00000.h5", ["features", "chunked"]),
    ],
)
def test_damage_is_named(tmp_path, damage, file, named):
    folder = tmp_path / "store"
    write(folder, random_rows(5))
    damage(folder)
    with raises_naming(folder / file, *named):
        FeatureStore(folder)
    shutil.rmtree(folder)
