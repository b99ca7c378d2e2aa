"""Regions of a photograph that is not in the store, as the regions stage would have stored them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from crossmodal.batch import Regions
from crossmodal.datasets.decode import NOT_FOUND, decode
from crossmodal.errors import UserError
from crossmodal.limits import shown
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.extract import autocast, store_row


def read_photograph(path: Path, extractor: RegionExtractor, precision: str) -> Regions:
    """Regions of one photograph: (1, R, D) features, rounded to float16 as stored ones are, and boxes as shares.

    Args:
        precision: ``regions.precision``, with which the stage extracts.

    Raises:
        UserError: the file is missing, truncated, too large, or no image.
    """
    image = decode(path)
    if isinstance(image, str):
        raise UserError(f"{shown(path)}: {'no such file; give a photograph' if image == NOT_FOUND else image}")
    return regions_of(image, extractor, precision)


def regions_of(image: np.ndarray, extractor: RegionExtractor, precision: str) -> Regions:
    """The same of an image that is decoded, (H, W, 3) uint8."""
    row = row_of(image, extractor, precision)
    features = torch.from_numpy(row["features"]).float()
    return Regions(
        features=features.unsqueeze(0),
        boxes=torch.from_numpy(row["boxes"]).unsqueeze(0),
        mask=torch.ones(1, len(features), dtype=torch.bool),
    )


def row_of(image: np.ndarray, extractor: RegionExtractor, precision: str) -> dict[str, np.ndarray]:
    """Arrays of an image, (H, W, 3) uint8, as a store has them: features (R, D) float16, boxes (R, 4) and others."""
    with autocast(precision):
        row = store_row(extractor([image])[0], image.shape)
    return row | {"features": row["features"].astype(np.float16)}
