"""Extraction by several processes, on one machine or many that share a file system.

The records are cut into parts, runs of whole windows (see ``extract``) of at least PART_ROWS, whatever the number of
workers. A part is extracted into a store of its own by the first process that locks it, and resumes after a kill. The
concatenated parts are, byte for byte, the store of an extraction in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.features.store import LEFT_OUT, FeatureStore, StoreWriter
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.extract import Extraction, extract_regions, window_rows
from crossmodal.runtime import progress

PART_ROWS = 512


def cut_into_parts(images: int, batch_size: int) -> list[range]:
    """Rows of each part; the same for every worker."""
    window = window_rows(batch_size)
    size = window * max(-(-PART_ROWS // window), 1)
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n``, the i-th of n workers, counted from 0.

    Raises:
        UserError: anything else.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UserError(f"--shard {text}: expected i/n, worker i of n, counted from 0: 0/{count or 4} is the first")
    return int(number), int(count)


def part_folder(folder: Path, rows: range) -> Path:
    """Folder of a part's store."""
    return folder / f"{rows.start:08d}"


def missing_parts(folder: Path, parts: Sequence[range]) -> list[range]:
    """The parts that are not complete."""
    return [rows for rows in parts if not (part_folder(folder, rows) / "index.json").is_file()]


def extract_part(
    dataset: Dataset, extractor: RegionExtractor, folder: Path, rows: range, how: Extraction, *, wait: bool
) -> None:
    """Extract one part unless it is complete, or, without ``wait``, another process is extracting it.

    Raises:
        UserError: see ``extract_regions``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out = part_folder(folder, rows)
    with suppress(Timeout), FileLock(out.with_suffix(".lock"), timeout=-1 if wait else 0):
        if missing_parts(folder, [rows]):
            extract_regions(dataset, extractor, out, how, rows=rows)


def merge_parts(folder: Path, parts: Sequence[range], out: Path, *, max_broken: int) -> None:
    """Concatenate all parts into one store; an interrupted merge resumes.

    Raises:
        UserError: a part is missing or damaged, or they have more unreadable images in total than ``max_broken``.
    """
    if missing := missing_parts(folder, parts):
        raise UserError(f"{folder}: {len(missing)} of {len(parts)} parts are missing, the first of row {missing[0][0]}")
    stores = [FeatureStore(part_folder(folder, rows)) for rows in parts]
    first, left_out = stores[0], [entry for store in stores for entry in store.metadata.get(LEFT_OUT, ())]
    if len(left_out) > max_broken:
        raise UserError(
            f"{folder}: {len(left_out)} images could not be read, regions.max_broken is {max_broken}; "
            f"the first is {left_out[0]['image']} ({left_out[0]['reason']})"
        )
    writer = StoreWriter(out, {name: (str(dtype), shape) for name, (dtype, shape) in first.arrays.items()})
    done = len(writer)
    for store, rows in zip(stores, progress(parts, desc="merge", unit="part"), strict=True):
        for row in rows[max(done - rows.start, 0) :]:
            writer.append({name: store.read(row - rows.start, name) for name in store.arrays})
    writer.close(first.metadata | {LEFT_OUT: left_out} if left_out else first.metadata)
