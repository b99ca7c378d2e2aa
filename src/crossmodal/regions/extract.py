"""Regions of every image of a dataset into the feature store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.features.store import StoreWriter
from crossmodal.regions.base import ImageRegions, RegionExtractor
from crossmodal.runtime import progress


def extract_regions(
    dataset: Dataset, extractor: RegionExtractor, folder: Path, *, batch_size: int, backend: str
) -> None:
    """Write a store whose row i holds the regions of record i.

    Arrays: ``features`` (R, D) float16, ``boxes`` (R, 4) float32 as shares of the image, ``classes`` and
    ``attributes`` (R,) int16, ``scores`` (R,) float32. Goes on behind the shards ``folder`` already holds.
    Images are decoded by a second thread while the network works.

    Raises:
        UserError: an image is missing or unreadable (the download stage has checked every one of them).
    """
    writer = StoreWriter(
        folder,
        {
            "features": ("float16", (extractor.feature_dim,)),
            "boxes": ("float32", (4,)),
            "classes": ("int16", ()),
            "attributes": ("int16", ()),
            "scores": ("float32", ()),
        },
    )
    rows = range(len(writer), len(dataset.records))
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    bar = progress(total=len(dataset.records), initial=len(writer), desc="regions", unit="image")
    with ThreadPoolExecutor(max_workers=1) as reader:
        pending = reader.submit(_read_images, dataset, batches[0]) if batches else None
        for number, batch in enumerate(batches):
            images = pending.result()
            if number + 1 < len(batches):
                pending = reader.submit(_read_images, dataset, batches[number + 1])
            for image, regions in zip(images, extractor(images), strict=True):
                writer.append(_store_row(regions, width=image.shape[1], height=image.shape[0]))
            bar.update(len(batch))
    bar.close()
    writer.close(
        {
            "backend": backend,
            "feature_dim": extractor.feature_dim,
            "classes": list(getattr(extractor, "classes", ())),
            "attributes": list(getattr(extractor, "attributes", ())),
        }
    )


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Raises:
        UserError: missing, truncated, or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: image not found, but the manifest lists it") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: unreadable image ({error})") from None


def _read_images(dataset: Dataset, rows: range) -> list[np.ndarray]:
    return [read_image(dataset.image_path(row)) for row in rows]


def _store_row(regions: ImageRegions, *, width: int, height: int) -> dict[str, np.ndarray]:
    scale = np.array([width, height, width, height], dtype=np.float32)
    return {
        "features": regions.features,
        "boxes": np.clip(regions.boxes / scale, 0, 1),
        "classes": regions.classes,
        "attributes": regions.attributes,
        "scores": regions.scores,
    }
