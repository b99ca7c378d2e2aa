"""ROUGE-L of every caption with every image, the relevance of TERN's nDCG (arXiv 2004.09144, section 4).

The definition is that of coco-caption (Lin, ROUGE, 2004, section 3, beta 1.2): with LCS the length of the longest
common subsequence of words of a caption c and a reference r, and an image's captions as references,

    P = max_r LCS(c, r) / |c|        R = max_r LCS(c, r) / |r|        F = (1 + beta^2) P R / (R + beta^2 P)

Words are separated by single spaces, in lower case. A caption is a reference of its own image: F is 1 there.

Every word becomes one character, and RapidFuzz computes the LCS of all pairs of strings, bit-parallel over 64-bit
words (Hyyrö, Bit-parallel LCS-length computation revisited, 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from crossmodal.runtime import progress

BETA = 1.2
_CAPTION_CHUNK = 256


def rouge_l_relevance(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    beta: float = BETA,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """ROUGE-L F of every caption against the references of every image: (C, N) float32, 0 to 1.

    Args:
        captions: C candidates. references: the captions of each of N images, in any number; none gives 0.
        out: (C, N) float32 to write to, a memory map where the matrix is larger than memory may be.
    """
    ids: dict[str, int] = {}

    def encode(caption: str | None) -> str:
        """One character a word; an image without a further caption: none, which has nothing in common with any."""
        words = () if caption is None else caption.lower().split(" ")
        return "".join(chr(ids.setdefault(word, len(ids))) for word in words)

    candidates = [encode(caption) for caption in captions]
    # The first reference of every image, then the second, and so on; None where an image has no more.
    columns = [[encode(text) for text in column] for column in zip_longest(*references)]
    lengths = [np.maximum([len(text) for text in column], 1) for column in columns]
    longest = max(map(len, candidates), default=0)
    matrix = np.empty((len(captions), len(references)), dtype=np.float32) if out is None else out
    for start in progress(range(0, len(candidates), _CAPTION_CHUNK), desc="ROUGE-L", leave=False):
        block = candidates[start : start + _CAPTION_CHUNK]
        common, recall = np.zeros((len(block), len(references)), np.int32), np.zeros((len(block), len(references)))
        for column, length in zip(columns, lengths, strict=True):
            kind = np.min_scalar_type(longest)
            lcs = cdist(block, column, scorer=LCSseq.similarity, dtype=kind, workers=-1)  # (block, N)
            np.maximum(common, lcs, out=common)
            np.maximum(recall, lcs / length, out=recall)
        precision = common / np.array([len(text) for text in block])[:, None]
        total = recall + beta**2 * precision
        score = (1 + beta**2) * precision * recall
        matrix[start : start + len(block)] = np.divide(score, total, out=np.zeros_like(score), where=total > 0)
    return matrix
