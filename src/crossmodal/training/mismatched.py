"""Training under wrong pairs: some captions of the training split are given images that they do not describe.

``train.mismatched`` is the share of the captions whose images are shuffled among them, as NCR draws them (Huang et al.,
NeurIPS 2021; a few keep their image by chance), or a .npy file of indices in one of the published layouts. Images are
counted from 0 in the order of the training split, captions in the same order:

    one index a caption   its image (XLearning-SCU/2021-NeurIPS-NCR, data.py; QinYang79/CRCL's too)
    one index an image    the image that all its captions are given instead (QinYang79/DECL, data.py)

Validation and test keep their pairs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npy
from crossmodal.runtime import setting_path
from crossmodal.settings.training import Train
from crossmodal.training.batches import TrainingData

FILE = "mismatched.npy"  # of the matcher: one index a caption


def training_images(train: Split, settings: Train) -> np.ndarray:
    """The image that training gives each caption: (C,) int64, from 0 to N - 1.

    Raises:
        UserError: the file is missing, damaged, or not of this training split.
    """
    if isinstance(settings.mismatched, str):
        return _from_file(setting_path(settings.mismatched), train)
    rng = np.random.default_rng(settings.mismatched_seed)
    images = train.caption_image.copy()
    chosen = rng.permutation(len(images))[: int(settings.mismatched * len(images))]
    images[chosen] = rng.permutation(images[chosen])
    return images


def with_wrong_pairs(data: TrainingData, images: np.ndarray) -> TrainingData:
    """The same data with other images of the training captions, (C,) as ``training_images`` gives them."""
    caption_image = data.caption_image.copy()
    caption_image[data.train.captions] = data.train.images[images]
    return replace(data, caption_image=caption_image, train=replace(data.train, caption_image=images))


def _from_file(path: Path, train: Split) -> np.ndarray:
    index = read_npy(path, "an array of image indices", advice="train.mismatched names it")
    images, captions = len(train.images), len(train.captions)
    if index.ndim != 1 or index.dtype.kind not in "iu" or len(index) not in (images, captions):
        raise UserError(
            f"{path}: holds {index.dtype} {index.shape}; train.mismatched needs {captions:,} indices, one a training "
            f"caption (NCR), or {images:,}, one a training image (DECL)"
        )
    outside = np.flatnonzero((index < 0) | (index >= images))
    if len(outside):
        raise UserError(
            f"{path}: index {index[outside[0]]} at {outside[0]:,}; the training split has images 0 to {images - 1:,}"
        )
    index = index.astype(np.int64)
    return index if len(index) == captions else index[train.caption_image]
