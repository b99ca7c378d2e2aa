"""Photographs that were embedded before, by the checksum of their file, whatever it was called."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from crossmodal.errors import UserError, first_line
from crossmodal.features.store import FeatureStore
from crossmodal.serving.vector_table import about

TABLES, STORES = "vectors", "region_parts"  # folders of shards, and of their regions while a gallery is made


class Former:
    """Rows of the shards in some folders, each a gallery or one that was not finished.

    Args:
        made_by: key of the models and settings; shards of others are passed over, as are damaged ones.
        regions: pass over shards whose regions are not there.
    """

    def __init__(self, folders: Sequence[Path], made_by: str, *, regions: bool) -> None:
        self._shards: list[tuple[Path, Path | None, int]] = []  # table, store of regions, its first row in that store
        self._rows: dict[str, tuple[int, int]] = {}
        self._table = functools.lru_cache(4)(_read_table)  # of this object: the files of a path change between runs
        self._store = functools.lru_cache(4)(FeatureStore)
        for folder in folders:
            whole, first = folder / "regions", 0
            for path in sorted((folder / TABLES).glob("*.parquet")):
                rows = self._add(path, folder, whole, first, made_by, regions=regions)
                if rows is None and regions and whole.is_dir():
                    break  # rows of the store cannot be told from here on
                first += rows or 0

    def _add(self, path: Path, folder: Path, whole: Path, first: int, made_by: str, *, regions: bool) -> int | None:
        try:
            if about(pq.read_schema(path)).get("made_by") != made_by:
                return None
            sums = pq.read_table(path, columns=["sha256"])["sha256"].to_pylist()
        except Exception:  # of a damaged file pyarrow raises whatever it leads to
            return None
        store = folder / STORES / path.stem
        if regions and (whole / "index.json").is_file():
            shard = (path, whole, first)
        else:
            shard = (path, store if (store / "index.json").is_file() else None, 0)
        if shard[1] or not regions:
            self._shards.append(shard)
            for row, checksum in enumerate(sums):
                self._rows.setdefault(checksum, (len(self._shards) - 1, row))
        return len(sums)

    def __contains__(self, checksum: str) -> bool:
        return checksum in self._rows

    def row(self, checksum: str) -> dict[str, Any]:
        """Vector or vectors, boxes, classes, width and height."""
        shard, row = self._rows[checksum]
        return self._table(self._shards[shard][0]).slice(row, 1).to_pylist()[0]

    def regions(self, checksum: str) -> tuple[FeatureStore, int]:
        """The store that holds a photograph's regions, and the row."""
        shard, row = self._rows[checksum]
        _, store, first = self._shards[shard]
        return self._store(store), first + row


def _read_table(path: Path) -> Any:
    try:
        return pq.read_table(path)
    except Exception as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); remove it and run the same command again") from None


def as_arrays(rows: Sequence[Any], width: int) -> np.ndarray:
    """Lists of lists as (R, width) float32."""
    return np.asarray(rows, np.float32).reshape(-1, width)
