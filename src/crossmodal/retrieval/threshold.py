"""The score below which a search says that nothing fits, measured on the validation split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.threshold import even_score
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.retrieval.gallery import Threshold

_SEED = 0


def measure_threshold(inputs: SearchInputs, images: int) -> Threshold | None:
    """Search some images of the validation split by their captions, with a caption's own image among them and without.

    The score is that of the image found first, at which both are equally likely. What an image found first is right by,
    being the caption's own, would be another measure; where many images fit a caption, as in drawn scenes, it counts
    most good results as wrong, and no score would be high enough.

    Args:
        inputs: of the validation split, which may be empty. images: at most so many, drawn at random; 0: none.

    Returns:
        None where there is too little to tell, see ``even_score``.
    """
    split = inputs.split
    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(split.images))[:images])
    captions = np.flatnonzero(np.isin(split.caption_image, chosen))
    if not len(captions):
        return None
    drawn = Split(
        split.images[chosen], split.captions[captions], np.searchsorted(chosen, split.caption_image[captions])
    )
    matrix = similarity_matrix(replace(inputs, split=drawn))
    there = matrix.max(axis=0)
    matrix[drawn.caption_image, np.arange(len(captions))] = -np.inf
    missing = matrix.max(axis=0)
    scores, right = np.concatenate([there, missing]), np.arange(2 * len(captions)) < len(captions)
    even = even_score(scores, right) if len(chosen) > 1 else None
    if even is None:
        return None
    return Threshold(
        key=inputs.config.key,
        score=even.even,
        slope=even.slope,
        images=len(chosen),
        captions=len(captions),
    )
