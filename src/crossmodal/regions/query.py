"""A photograph that is not in the region store, read as the regions stage would have stored it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crossmodal.errors import UserError
from crossmodal.models.base import Regions
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extract import read_image


def read_photograph(path: Path, extractor: RegionExtractor) -> Regions:
    """Regions of one photograph: (1, R, D) features, rounded to float16 as stored ones are, and boxes as shares.

    Raises:
        UserError: the file is missing, truncated, too large, or no image.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a photograph")
    try:
        image = read_image(path)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: unreadable image ({error})") from None
    found = extractor([image])[0]
    height, width = image.shape[:2]
    boxes = np.clip(found.boxes / np.array([width, height, width, height], dtype=np.float32), 0, 1)
    features = torch.from_numpy(found.features.astype(np.float16)).float()
    return Regions(
        features=features.unsqueeze(0),
        boxes=torch.from_numpy(boxes).unsqueeze(0),
        mask=torch.ones(1, len(features), dtype=torch.bool),
    )
