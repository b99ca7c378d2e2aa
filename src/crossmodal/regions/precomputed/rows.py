"""Shared by the readers of precomputed features: their interface, names of images, and checks of a row."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Container
from pathlib import PurePosixPath

import numpy as np

from crossmodal.datasets.decode import SUFFIXES
from crossmodal.datasets.records import Dataset, ImageRecord
from crossmodal.errors import UserError
from crossmodal.regions.extraction.extract import region_arrays

_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)")
_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
_PIXELS = 4  # an image whose longer side has more cannot have all its boxes within one pixel
_ASPECT = 0.05  # relative difference of width / height that a resized copy of a photograph may have


class FeatureReader(ABC):
    """Region features in another project's files.

    arrays: of the store, as StoreWriter takes them. missing: rows of the dataset that have no features in the files.
    problems: the reason for each of those whose features are there but damaged.

    Raises:
        UserError: the files are not in the reader's format.
    """

    def __init__(self, dataset: Dataset, found: Container[int], size: int, *others: str) -> None:
        """``found``: rows that have features, of ``size`` values. ``others``: names of further arrays."""
        self.dataset, self.size = dataset, size
        self.arrays = {name: region_arrays(size)[name] for name in ("features", *others)}
        self.missing = [row for row in range(len(dataset.records)) if row not in found]
        self.problems: dict[int, str] = {}

    @abstractmethod
    def row(self, row: int) -> dict[str, np.ndarray]:
        """The arrays of a row that is not missing; boxes as shares of the image."""


def image_key(name: str) -> str:
    """One name for an image's id and its file, e.g. 150367 for COCO_train2014_000000150367.jpg."""
    name = unicodedata.normalize("NFC", name.strip())  # accents as the other side has them
    stem = _SUFFIX.sub("", name)
    number = _COCO.fullmatch(stem)
    return number[1] if number else stem


def record_rows(dataset: Dataset) -> dict[str, int]:
    """Row of every image, by the keys of its id and of its file name; without keys that several images share.

    In a user's folder a/1.jpg and b/01.jpg may be different photographs: features named 1 may be of either.
    """
    rows: dict[str, set[int]] = defaultdict(set)
    for row, record in enumerate(dataset.records):
        rows[image_key(record.id)].add(row)
        rows[image_key(PurePosixPath(record.path).name)].add(row)
    return {key: row for key, (row, *others) in rows.items() if not others}


def as_features(values: np.ndarray, where: str, size: int | None = None) -> np.ndarray:
    """(R, D) as float16, R and D at least 1.

    Raises:
        UserError: another shape, another D than ``size``, no floats, or values that are not finite in float16.
    """
    if values.ndim != 2 or not values.size or values.dtype.kind != "f":
        raise UserError(f"{where}: features are {values.dtype} {values.shape}, expected floats (regions, size)")
    if size is not None and values.shape[1] != size:
        raise UserError(f"{where}: features of size {values.shape[1]}, those before have {size}")
    with np.errstate(over="ignore"):
        features = values.astype(np.float16)
    if not np.isfinite(features).all():
        raise UserError(f"{where}: a feature is not finite, or above 65,504, the largest that float16 holds")
    return features


def as_shares(boxes: np.ndarray, width: float, height: float, regions: int, where: str) -> np.ndarray:
    """Boxes (R, 4) of an image of this size as shares of it, float32.

    They are in pixels, or shares already: where no coordinate is above 1 although the image has more than _PIXELS, all
    regions would else be in one corner of it.

    Raises:
        UserError: another shape, no real numbers, or a box that ends before it starts or lies outside the image.
    """
    if boxes.shape != (regions, 4):
        raise UserError(f"{where}: boxes are {boxes.shape}, expected ({regions}, 4): one for each region")
    if boxes.dtype.kind not in "fiu":
        raise UserError(f"{where}: boxes are of type {boxes.dtype}, expected real numbers")
    shares, unit = boxes.astype(np.float32), "pixels"
    if max(width, height) > _PIXELS and shares.max() <= 1 + _ASPECT:
        unit = "shares of it"
    else:
        shares = shares / np.array([width, height, width, height], dtype=np.float32)
    inside = np.isfinite(shares).all() and shares.min() > -_ASPECT and shares.max() < 1 + _ASPECT
    if not inside or (shares[:, 2:] < shares[:, :2]).any():
        raise UserError(
            f"{where}: a box is not x1 y1 x2 y2 within the image of {width:g} x {height:g} pixels, in {unit}"
        )
    return shares.clip(0, 1)


def check_aspect(record: ImageRecord, width: float, height: float, where: str) -> None:
    """The features are of the record's image, or of a resized copy.

    Raises:
        UserError: they are of an image of another shape.
    """
    ratio = (width / height) / (record.width / record.height) if width > 0 and height > 0 else 0
    if not abs(ratio - 1) <= _ASPECT:  # NaN too
        turned = abs(ratio * (record.width / record.height) ** 2 - 1) <= _ASPECT
        hint = "; they may be of the photograph before its EXIF orientation turns it" if turned else ""
        raise UserError(
            f"{where}: features of an image of {width:g} x {height:g}, "
            f"{record.id} has {record.width} x {record.height}{hint}"
        )
