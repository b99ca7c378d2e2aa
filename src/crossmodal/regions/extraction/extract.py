"""Regions of every image of a dataset into the feature store.

Images are processed in windows of about WINDOW rows; within one they are sorted by shape, so that the images of a batch
are of about the same size, and the rows are written in the dataset's order. Windows and batches depend on the dataset
and the batch size alone, not on where a killed run stopped nor on the rows of a worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from crossmodal.datasets.decode import decode
from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.features.store import LEFT_OUT, SETTINGS, StoreWriter
from crossmodal.files.checked_json import read_json, write_json
from crossmodal.regions.base import ImageRegions, RegionExtractor
from crossmodal.runtime import pick_device, progress, usable_precision
from crossmodal.settings.derived import image_reading, region_backend
from crossmodal.settings.params import Params

WINDOW = 256  # rows
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Extraction:
    """How regions are extracted.

    backend: its name, kept with the store. workers: processes that decode images while the network computes; 0: this
    process decodes. max_broken: number of images that may be unreadable. precision: fp32, or bf16 or fp16 by autocast.
    settings: kept with the store, for reading photographs of queries.
    """

    batch_size: int
    backend: str
    workers: int = 0
    max_broken: int = 0
    precision: str = "fp32"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Params) -> Extraction:
        """As params.yaml says."""
        own = params.regions
        settings = image_reading(params)
        return cls(own.batch_size, region_backend(params), own.workers, own.max_broken, own.precision, settings)


def extract_regions(
    dataset: Dataset, extractor: RegionExtractor, folder: Path, how: Extraction, *, rows: range | None = None
) -> None:
    """Write a store whose row i holds the regions of record i.

    Arrays: ``features`` (R, D) float16, or the extractor's ``dtype``, ``boxes`` (R, 4) float32 as shares of the image,
    ``classes`` and ``attributes`` (R,) int16, ``scores`` (R,) float32. Resumes after the shards in ``folder``.

    An image that cannot be read keeps its row: one region of zeros over the whole image, score 0. The store's
    metadata names it under ``left_out``, and splits leave it out (datasets.splits).

    Args:
        rows: of the records, from the start of a window; None: all. Row i of the store is then ``rows[i]``.

    Raises:
        UserError: more images than ``how.max_broken`` are missing or unreadable. Finished shards are kept.
    """
    rows = range(len(dataset.records)) if rows is None else rows
    arrays = region_arrays(extractor.feature_dim, getattr(extractor, "dtype", "float16"))
    writer = StoreWriter(folder, arrays)
    broken = _Broken(dataset, folder, writer, rows.start, how.max_broken)
    done = rows.start + len(writer)
    windows = [[batch for batch in window if max(batch) >= done] for window in plan(dataset, rows, how.batch_size)]
    loader = DataLoader(
        [[dataset.image_path(row) for row in batch] for window in windows for batch in window],
        batch_size=None,
        collate_fn=_decode_all,
        num_workers=how.workers,
    )
    images = iter(loader)
    with progress(total=len(rows), initial=len(writer), desc="regions", unit="image") as bar, autocast(how.precision):
        for window in windows:
            found = {}
            for batch in window:
                whole = {}
                for row, image in zip(batch, next(images), strict=True):
                    if isinstance(image, str):
                        broken.add(row, image)
                        found[row] = empty_row(arrays)
                    else:
                        whole[row] = image
                regions = extractor(list(whole.values())) if whole else []
                for (row, image), of_image in zip(whole.items(), regions, strict=True):
                    found[row] = store_row(of_image, image.shape)
                bar.update(sum(row >= done for row in batch))
            for row in sorted(row for row in found if row >= done):
                writer.append(found.pop(row))
    metadata = {
        "backend": how.backend,
        "feature_dim": extractor.feature_dim,
        "classes": list(getattr(extractor, "classes", ())),
        "attributes": list(getattr(extractor, "attributes", ())),
    } | ({SETTINGS: dict(how.settings)} if how.settings else {})
    writer.close(metadata | left_out(dataset, broken.reasons))
    broken.file.unlink(missing_ok=True)


def autocast(precision: str) -> torch.autocast:
    """Autocast to ``regions.precision`` if the device is fast in it; else fp32."""
    device = pick_device().type
    dtype = PRECISIONS.get(usable_precision(precision, device, "regions.precision"))
    return torch.autocast(device, dtype, enabled=dtype is not None)


def region_arrays(feature_dim: int, dtype: str = "float16") -> dict[str, tuple[str, tuple[int, ...]]]:
    """The arrays of a store of regions, as StoreWriter takes them."""
    return {
        "features": (dtype, (feature_dim,)),
        "boxes": ("float32", (4,)),
        "classes": ("int16", ()),
        "attributes": ("int16", ()),
        "scores": ("float32", ()),
    }


def window_rows(batch_size: int) -> int:
    """Rows of a window: whole batches, about WINDOW of them."""
    return batch_size * max(WINDOW // batch_size, 1)


def plan(dataset: Dataset, rows: range, batch_size: int) -> list[list[list[int]]]:
    """Windows of batches of rows; a window's rows are sorted by the shape of their images."""

    def shape(row: int) -> tuple[float, int]:
        record = dataset.records[row]
        return record.width / record.height, record.width  # networks that resize have one size for one aspect

    windows = []
    for start in range(rows.start, rows.stop, window_rows(batch_size)):
        order = sorted(range(start, min(start + window_rows(batch_size), rows.stop)), key=shape)
        windows.append([order[first : first + batch_size] for first in range(0, len(order), batch_size)])
    return windows


def empty_row(arrays: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """The row of an image that was left out: zeros, the whole image as box, no class."""
    row = {name: np.zeros((1, *shape), dtype) for name, (dtype, shape) in arrays.items()}
    for name in {"classes", "attributes"} & set(row):
        row[name] -= 1
    if "boxes" in row:
        row["boxes"][0, 2:] = 1
    return row


def left_out(dataset: Dataset, reasons: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """The entry in a store's metadata for rows without regions; empty if there are none."""
    rows = [{"row": row, "image": dataset.records[row].id, "reason": reasons[row]} for row in sorted(reasons)]
    return {LEFT_OUT: rows} if rows else {}


def _decode_all(paths: Sequence[Path]) -> list[np.ndarray | str]:
    return [decode(path) for path in paths]


def store_row(regions: ImageRegions, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The regions of an image of ``shape`` (H, W, 3) as a row of the store: boxes as shares of it, (R, 4) in 0..1."""
    height, width = shape[:2]
    scale = np.array([width, height, width, height], dtype=np.float32)
    return {
        "features": regions.features,
        "boxes": np.clip(regions.boxes / scale, 0, 1),
        "classes": regions.classes,
        "attributes": regions.attributes,
        "scores": regions.scores,
    }


class _Broken:
    """``reasons`` why images could not be read, by row, kept in a file next to the unfinished store.

    If an image has been repaired since, the shards from its row onwards are discarded.
    """

    def __init__(self, dataset: Dataset, folder: Path, writer: StoreWriter, first: int, limit: int) -> None:
        self.dataset, self.limit = dataset, limit
        self.file = folder.with_name(f"{folder.name}.broken.json")
        content = read_json(self.file, dict) if self.file.is_file() else {}
        if not all(row.isdecimal() and len(row) < 12 and isinstance(reason, str) for row, reason in content.items()):
            raise UserError(f"{self.file}: expected reasons by row; remove the file and run the same command again")
        reasons = {int(row): reason for row, reason in content.items()}
        written = sorted(row for row in reasons if row < first + len(writer))
        repaired = next((row for row in written if not isinstance(decode(dataset.image_path(row)), str)), None)
        if repaired is not None:
            writer.drop_from(repaired - first)
        self.reasons = {row: reasons[row] for row in written if row < first + len(writer)}

    def add(self, row: int, reason: str) -> None:
        self.reasons[row] = reason
        write_json(self.file, self.reasons, indent=None)
        if len(self.reasons) > self.limit:
            path = self.dataset.image_path(min(self.reasons))
            raise UserError(
                f"{path}: {self.reasons[min(self.reasons)]}; {len(self.reasons)} images could not be read, "
                f"regions.max_broken is {self.limit}. Repair them or raise it, and run the same command again"
            )
