"""Rows of a split in the image and caption stores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError


@dataclass(frozen=True)
class Split:
    """One split: ``images`` (N,) and ``captions`` (C,) are store rows, ``caption_image`` (C,) counts from 0 to N-1."""

    images: np.ndarray
    captions: np.ndarray
    caption_image: np.ndarray


def split_rows(dataset: Dataset, name: str, left_out: Collection[int] = ()) -> Split:
    """The images of a split and all their captions, in the dataset's order.

    Without the rows ``left_out``, images whose store rows hold no regions (``FeatureStore.left_out``); in the split
    "probe" without the other image of their pair too.

    Raises:
        UserError: an image of the split "probe" is in no pair.
    """
    rows = dataset.rows(name)
    if name == "probe":
        if len(rows) % 2:
            raise UserError(f"{dataset.folder}: split probe: {len(rows):,} images, expected pairs of them")
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [row for pair in pairs for row in pair if not set(pair) & set(left_out)]
    images = np.asarray([row for row in rows if row not in left_out], dtype=np.int64)
    owners = caption_images(dataset)
    captions = np.flatnonzero(np.isin(owners, images))
    return Split(images, captions, np.searchsorted(images, owners[captions]))


def require_split(dataset: Dataset, name: str, left_out: Collection[int] = ()) -> Split:
    """``split_rows`` of a split that a stage cannot do without.

    Raises:
        UserError: the dataset has no image in it, or all of them are left out.
    """
    split = split_rows(dataset, name, left_out)
    if not len(split.images):
        count = len(dataset.rows(name))
        reason = f"none of its {count:,} images has region features" if count else "no image is in it"
        raise UserError(f"{dataset.folder}: split {name}: {reason}")
    return split


def first_images(split: Split, count: int) -> Split:
    """The first ``count`` images of a split and their captions; 0: all."""
    if not count:
        return split
    own = split.caption_image < count
    return Split(split.images[:count], split.captions[own], split.caption_image[own])


def caption_images(dataset: Dataset) -> np.ndarray:
    """Image row of every caption of the dataset: (captions,) int64."""
    return np.repeat(np.arange(len(dataset.records)), np.diff(dataset.caption_offsets()))
