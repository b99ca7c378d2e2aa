"""Compositional tests scored by a trained matcher, with regions from the detector that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from crossmodal.batch import Encoding
from crossmodal.datasets.contrasts import Contrast, Shown
from crossmodal.datasets.decode import read_image, upright_size
from crossmodal.errors import UserError
from crossmodal.inference.scoring import scored
from crossmodal.models.checkpoint import load_matcher
from crossmodal.regions.extraction.query import regions_of
from crossmodal.runtime import pick_device, progress
from crossmodal.serving.session import Folders, as_stored, matching_extractor, matching_reader
from crossmodal.settings.params import Params

KEPT = 64  # encoded images, as several examples in a row may show the same


def score_contrasts(contrasts: Sequence[Contrast], params: Params, folders: Folders) -> list[np.ndarray]:
    """Similarity (images, captions) float32 of each example.

    Photographs and sentences are read by the settings of the feature stores, where these are there.

    Raises:
        UserError: an image is unreadable, or models are missing, damaged or do not belong together.
    """
    model, config = load_matcher(folders.matcher)
    params = as_stored(params, folders)
    device = pick_device()
    model.to(device)
    extractor, reader = matching_extractor(params, folders, config), matching_reader(params, folders, config)

    @lru_cache(KEPT)
    def image(shown: Shown) -> Encoding:
        return model.encode_regions(regions_of(pixels_of(shown), extractor, params.regions.precision).to(device))

    def similarity(contrast: Contrast) -> np.ndarray:
        captions = [model.encode_text(reader(text).to(device)) for text in contrast.captions]
        rows = [[scored(model, image(shown), caption, exact=model.approximate) for caption in captions]
                for shown in contrast.images]  # fmt: skip
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(captions))

    with torch.inference_mode():
        return [similarity(contrast) for contrast in progress(contrasts, desc="probe", unit="example")]


def pixels_of(shown: Shown) -> np.ndarray:
    """The image, or the part of it that is shown: (H, W, 3) uint8.

    Raises:
        UserError: unreadable, or the box is not in the image.
    """
    image = read_image(shown.path)
    if shown.box is None:
        return image
    width, height = upright_size(shown.path)  # of what is too large, ``image`` is reduced
    x, y, w, h = np.array(shown.box) * np.tile([image.shape[1] / width, image.shape[0] / height], 2)
    part = image[round(y) : round(y + h), round(x) : round(x + w)]
    if not part.size:
        raise UserError(f"{shown.path}: box {shown.box}, the image has {width} x {height} pixels")
    return part
