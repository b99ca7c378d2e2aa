"""Which regions answer which words of a sentence: by the model's alignment, or by occlusion where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from crossmodal.batch import Regions, Words
from crossmodal.evidence.occlusion import falls
from crossmodal.models.base import Matcher

Kind = Literal["alignment", "occlusion"]


@dataclass(frozen=True)
class Explained:
    """Of one image: strength (W, R) of each region for each word, word_strength (W,) of each word; 0 to 1."""

    strength: np.ndarray
    word_strength: np.ndarray


@torch.inference_mode()
def explain(
    model: Matcher, regions: Regions, words: Words, groups: Sequence[np.ndarray]
) -> tuple[Kind, list[Explained]]:
    """How much the regions of images answer the words of a sentence.

    Alignment: the mean of a word's tokens, less the median over the image's regions, as attention that sums to 1 and
    cosines that lie close together become comparable by that; a word's strength is that of its strongest region.
    Occlusion: see ``evidence.occlusion``; a score that rises counts as 0. Both are divided by the largest value over
    all images, so that they compare images too.

    Args:
        model: in evaluation mode. regions: (B, R, D). words: (1, L, H), or ids (1, L).
        groups: tokens of each of W words, W > 0.
    """
    count = regions.mask.sum(dim=1).cpu().numpy()
    rows = torch.zeros(len(regions), dtype=torch.int64)
    weights = model.alignment(regions, words[rows])
    if weights is None:
        found = falls(model, regions, words, groups)
        of_regions = [np.maximum(fall.regions, 0) for fall in found]
        of_words = [np.maximum(fall.words, 0) for fall in found]
        kind: Kind = "occlusion"
    else:
        values = weights.float().cpu().numpy()
        # Matchers that make their regions of what is stored give more of them than the store.
        sizes = count if values.shape[1] == regions.mask.shape[1] else np.full(len(values), values.shape[1])
        of_regions = [_above_median(part[:size], groups) for part, size in zip(values, sizes, strict=True)]
        of_words = [part.max(axis=1) for part in of_regions]
        kind = "alignment"
    scales = [max(float(max(part.max() for part in parts)), 1e-12) for parts in (of_regions, of_words)]
    return kind, [
        Explained(strength / scales[0], word / scales[1]) for strength, word in zip(of_regions, of_words, strict=True)
    ]


def _above_median(weights: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """(R, L) of an image as (W, R), at least 0."""
    of_word = np.stack([weights[:, group].mean(axis=1) for group in groups])
    base = np.median(of_word, axis=1, keepdims=True) if of_word.shape[1] > 1 else 0.0
    return np.maximum(of_word - base, 0)
