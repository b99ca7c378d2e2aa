"""Import of precomputed region features into the feature store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.features.store import StoreWriter
from crossmodal.regions.extraction.extract import empty_row, left_out
from crossmodal.regions.precomputed.files import open_files
from crossmodal.regions.precomputed.rows import FeatureReader
from crossmodal.regions.precomputed.scan import ScanReader
from crossmodal.regions.precomputed.tsv import TsvReader
from crossmodal.runtime import progress, setting_path
from crossmodal.settings.features import Precomputed


def open_features(dataset: Dataset, settings: Precomputed) -> FeatureReader:
    """The reader of section ``precomputed``.

    Raises:
        UserError: there are no files, or not in the format of ``precomputed.format``.
    """
    path = setting_path(settings.path)
    if not path.exists():
        raise UserError(f"precomputed.path {settings.path}: not found")
    if settings.format == "tsv":
        return TsvReader(path, dataset)
    if not path.is_dir():
        raise UserError(f"precomputed.path {settings.path}: a file, format {settings.format} is a folder")
    if settings.format == "npz":
        return open_files(path, dataset)
    return ScanReader(path, dataset, grid=settings.format == "grid")


def import_regions(dataset: Dataset, settings: Precomputed, out: Path) -> Path:
    """Write a store whose row i holds the regions of record i, and return its folder ``out``.

    Arrays are those of ``extract_regions`` that the format has: ``features`` always, ``boxes`` of all but "scan",
    classes, attributes and scores of a TSV of 10 columns. One image is read at a time. Resumes after the shards that
    ``out`` already holds. An image without features keeps a row of zeros and is left out of the splits.

    Raises:
        UserError: more images than ``precomputed.max_missing`` have no features; see ``open_features``; features
            or boxes of an image do not fit the format or the manifest.
    """
    reader = open_features(dataset, settings)
    missing = set(reader.missing)
    if len(missing) > settings.max_missing or len(missing) == len(dataset.records):
        splits = Counter(dataset.records[row].split for row in missing)
        counts = ", ".join(f"{split} {count:,} of {len(dataset.rows(split)):,}" for split, count in splits.items())
        damaged = next((f"; {reader.problems[row]}" for row in reader.missing if row in reader.problems), "")
        raise UserError(
            f"precomputed.path {settings.path}: no features of {len(missing):,} images ({counts}), the first is "
            f"{dataset.records[reader.missing[0]].id}; precomputed.max_missing is {settings.max_missing}{damaged}"
        )
    writer = StoreWriter(out, reader.arrays)
    rows = range(len(writer), len(dataset.records))
    for row in progress(rows, desc="import", unit="image", total=len(dataset.records), initial=len(writer)):
        writer.append(empty_row(reader.arrays) if row in missing else reader.row(row))
    reasons = {row: reader.problems.get(row, "no features") for row in reader.missing}
    writer.close({"backend": "precomputed", "feature_dim": reader.size} | left_out(dataset, reasons))
    return out


def fingerprint(settings: Precomputed) -> list[list[str | int]]:
    """Name, size and time of every file of ``precomputed.path``: enough to see that something else is there now."""
    root = setting_path(settings.path)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()] if root.is_dir() else [root]
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files if path.exists()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
