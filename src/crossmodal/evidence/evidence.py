"""Sampled pair scores, and which regions answer which words: made by the evaluate stage (alignment.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

EVIDENCE_FILE = "evidence.npz"


@dataclass(frozen=True)
class Evidence:
    """Scores of sampled pairs; the alignment of the pairs that the report shows, or occlusion of models without one.

    matches (M,), non_matches (S,): float32 scores of images with their own captions, and with others.
    pairs (P, 2): image and caption as store rows; sizes (P, 2): their regions R and tokens L; weights: (R, L) of
    every pair, flat, one after the other, float16. captions (K,): store rows of the captions; spans (T, 2): where
    their tokens are in their texts (see CaptionEncoder.spans), one caption after the other, lengths (K,) of each.
    occlusion (): bool, whether weights are no alignment but by how much a score falls (evidence.occlusion), each word's
    at all its tokens.
    boxes (R, 4): of the regions of every image, as shares of it, where the matcher makes them of what is stored; (0, 4)
    where they are the stored ones.
    """

    matches: np.ndarray
    non_matches: np.ndarray
    pairs: np.ndarray
    sizes: np.ndarray
    weights: np.ndarray
    captions: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray
    boxes: np.ndarray
    occlusion: np.ndarray

    def alignment(self, image: int, caption: int) -> np.ndarray | None:
        """How much each region of an image answers each token of a caption: (R, L); None of a pair not kept."""
        number = self._numbers.get((image, caption))
        if number is None:
            return None
        start, (regions, tokens) = self._starts[number], self.sizes[number]
        return self.weights[start : start + regions * tokens].reshape(regions, tokens).astype(np.float32)

    def token_spans(self, caption: int) -> np.ndarray | None:
        """Characters of each token in a caption's text: (L, 2); None of a caption not kept."""
        return self._spans.get(caption)

    @cached_property
    def _numbers(self) -> dict[tuple[int, int], int]:
        return {(image, caption): number for number, (image, caption) in enumerate(self.pairs.tolist())}

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.sizes.prod(axis=1)])

    @cached_property
    def _spans(self) -> dict[int, np.ndarray]:
        parts = np.split(self.spans, np.cumsum(self.lengths)[:-1])
        return dict(zip(self.captions.tolist(), parts, strict=False))
