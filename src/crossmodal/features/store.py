"""The feature store: ragged rows of several arrays in HDF5 shards, read through memory maps.

    index.json       arrays with dtype and item shape, rows and SHA-256 of every shard, free metadata
    00000.h5 ...     per shard ``lengths`` (rows,) and one flat dataset per array, items of row 0 first

Row r has ``lengths[r]`` items (regions of an image, tokens of a caption), without padding. Datasets are contiguous, so
a shard is a plain memory map: safe to fork and free of HDF5's per-read cost (benchmarks/feature_store.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from pydantic import Field, field_validator

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.files.checksums import file_checksum

SHARD_BYTES = 512 * 2**20
SHARD_ROWS = 2048
SETTINGS = "settings"  # metadata: the settings that the features were made by, by dotted key of params.yaml
LEFT_OUT = "left_out"  # metadata: rows of images without regions, [{"row", "image", "reason"}]
_FORMAT = 1
_GROWTH = 16 * 2**20  # bytes by which a shard grows while it is made


class StoreWriter:
    """Appends rows and writes a shard whenever enough have gathered; continues where a killed run stopped.

    Args:
        folder: created if absent. Whole shards found in it (of the same arrays) are kept, up to the first that
            is damaged: continue from row ``len(writer)``.
        arrays: name -> (dtype, item shape), e.g. {"features": ("float16", (2048,)), "boxes": ("float32", (4,))}.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self.folder = folder
        self.arrays = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in arrays.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.part"):
            leftover.unlink()
        self._shards: list[dict[str, Any]] = []
        found = sorted(folder.glob("*.h5"))
        with contextlib.suppress(OSError, KeyError):  # damaged: it and the following shards are written again
            for path in found:
                self._shards.append(_shard_entry(path))
        for path in found[len(self._shards) :]:
            path.unlink()
        self._buffer: list[dict[str, np.ndarray]] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Rows that are safely on disk."""
        return sum(shard["rows"] for shard in self._shards)

    def drop_from(self, row: int) -> None:
        """Remove the shard on disk that holds ``row`` and all following ones, to be rewritten."""
        while self._shards and len(self) > row:
            (self.folder / self._shards.pop()["file"]).unlink()

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """Add one row: every array with the same number of items, (items, *item shape)."""
        converted = {}
        for name, (dtype, shape) in self.arrays.items():
            values = np.asarray(row[name])
            if values.shape[1:] != shape:
                raise ValueError(f"{name}: items of shape {values.shape[1:]}, the store holds {shape}")
            converted[name] = values.astype(dtype)
            self._bytes += converted[name].nbytes
        if len({len(values) for values in converted.values()}) != 1:
            raise ValueError("arrays of one row differ in their number of items")
        self._buffer.append(converted)
        if self._bytes >= SHARD_BYTES or len(self._buffer) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the gathered rows as one shard: whole under a temporary name, then renamed.

        HDF5 makes it in memory: on a full disk HDF5 would end the process without an exception.
        """
        if not self._buffer:
            return
        path = self.folder / f"{len(self._shards):05d}.h5"
        part = path.with_suffix(".part")
        with h5py.File(part, "w", driver="core", backing_store=False, block_size=_GROWTH, track_order=False) as file:
            lengths = [len(next(iter(row.values()))) for row in self._buffer]
            file.create_dataset("lengths", data=np.asarray(lengths, dtype=np.int32))
            for name, (dtype, shape) in self.arrays.items():
                flat = np.concatenate([row[name] for row in self._buffer])
                file.create_dataset(name, data=flat, shape=(sum(lengths), *shape), dtype=dtype)
            file.flush()
            content = file.id.get_file_image()
        part.write_bytes(content)
        part.replace(path)
        self._shards.append(_shard_entry(path))
        self._buffer, self._bytes = [], 0

    def close(self, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the last shard and the index; without this call the folder is not a store."""
        self.flush()
        index = {
            "format": _FORMAT,
            "arrays": {name: [str(dtype), list(shape)] for name, (dtype, shape) in self.arrays.items()},
            "shards": self._shards,
            "metadata": dict(metadata or {}),
        }
        # Last: a folder with an index counts as a complete store.
        write_json(self.folder / "index.json", index)


def _shard_entry(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        rows = len(file["lengths"])
    return {"file": path.name, "rows": rows, "sha256": file_checksum(path)}


def _plain(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset that lies in this file in one piece, at its offset; a UserError if it does not."""
    dataset = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.chunks is not None:
        kinds = "missing, a group, a link, virtual, external, chunked or compressed"
        raise UserError(f"{path}: {name} is no array in one piece in this file ({kinds})")
    return dataset


def _mapped(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    """The memory map of a plain dataset, or an empty array; a UserError if the file ends before it does."""
    if not dataset.size:
        return np.zeros(dataset.shape, dtype=dataset.dtype)
    offset, size = dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
    if offset is None or offset + size > path.stat().st_size:
        raise UserError(f"{path}: {dataset.name[1:]} has {size:,} bytes, which the file does not hold")
    return np.memmap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=dataset.shape)


# Real numbers of every size.
_DType = Annotated[str, Field(pattern=f"^({'|'.join(np.dtype(kind).name for kind in 'efdbhilBHIL?')})$")]
_Size = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Shard(Record):
    file: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    rows: Annotated[int, Field(ge=0, le=1 << 40)]
    sha256: str


class _Index(Record):
    """index.json."""

    format: Annotated[int, Field(ge=_FORMAT, le=_FORMAT)]
    arrays: dict[str, Annotated[tuple[_DType, list[_Size]], Field(strict=False)]]
    shards: list[_Shard]
    metadata: dict[str, Any]

    @field_validator("metadata")
    @classmethod
    def _rows_left_out(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        left_out = metadata.get(LEFT_OUT, [])
        if not isinstance(left_out, list) or not all(
            isinstance(entry, dict) and type(entry.get("row")) is int for entry in left_out
        ):
            raise ValueError(f"{LEFT_OUT}: entries with a row were expected")
        return metadata


class FeatureStore:
    """Read access to a store: rows by number, loaded on demand.

    Raises:
        UserError: the folder is no store, or a shard is missing, cut off or of another layout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index_path = folder / "index.json"
        index = read_record(index_path, _Index, advice="the stage that writes it has not run")
        self.arrays = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in index.arrays.items()}
        self.metadata = index.metadata
        self.digest = file_checksum(index_path)
        opened = [self._open_shard(folder / shard.file, shard.rows) for shard in index.shards]
        self._maps = [maps for _, maps in opened]
        lengths, empty = [lengths for lengths, _ in opened], np.zeros(0, dtype=np.int64)
        self.lengths = np.concatenate([empty, *lengths])
        self._shard_of = np.concatenate([empty, *(np.full(len(held), shard) for shard, held in enumerate(lengths))])
        self._first_item = np.concatenate([empty, *(np.cumsum(held) - held for held in lengths)])

    def _open_shard(self, path: Path, rows: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        try:
            with h5py.File(path, "r") as file:
                held = _plain(file, "lengths", path)
                if held.shape != (rows,) or held.dtype.kind != "i":
                    raise UserError(f"{path}: lengths is {held.dtype} {held.shape}, index.json says {rows} rows")
                lengths = np.asarray(_mapped(held, path)).astype(np.int64)
                if (lengths < 0).any():
                    raise UserError(f"{path}: row {int((lengths < 0).argmax())} has {lengths.min()} items")
                maps = {}
                for name, (dtype, shape) in self.arrays.items():
                    dataset = _plain(file, name, path)
                    expected = (int(lengths.sum()), *shape)
                    if dataset.shape != expected or dataset.dtype != dtype:
                        raise UserError(
                            f"{path}: {name} is {dataset.dtype} {dataset.shape}, expected {dtype} {expected}"
                        )
                    maps[name] = _mapped(dataset, path)
        except FileNotFoundError:
            raise UserError(f"{path}: not found, but index.json lists it") from None
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise UserError(f"{path}: unreadable feature file ({error})") from None
        return lengths, maps

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the features were made by, where the store has them: ``{"captions.max_tokens": 40}``."""
        return self.metadata.get(SETTINGS, {})

    @property
    def left_out(self) -> frozenset[int]:
        """Rows of images without regions: unreadable images, or images without precomputed features."""
        return frozenset(entry["row"] for entry in self.metadata.get(LEFT_OUT, ()))

    def read(self, row: int, name: str) -> np.ndarray:
        """One row of one array: (items, *item shape), a view into the memory map."""
        first = self._first_item[row]
        return self._maps[self._shard_of[row]][name][first : first + self.lengths[row]]

    def padded(self, rows: Sequence[int] | np.ndarray, name: str) -> np.ndarray:
        """Rows as one zero-padded batch: (rows, longest, *item shape)."""
        dtype, shape = self.arrays[name]
        longest = int(self.lengths[rows].max()) if len(rows) else 0
        batch = np.zeros((len(rows), longest, *shape), dtype=dtype)
        for index, row in enumerate(rows):
            batch[index, : self.lengths[row]] = self.read(row, name)
        return batch
