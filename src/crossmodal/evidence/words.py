"""Words of a text, from the characters of its tokens."""

from __future__ import annotations

import numpy as np


def words_of(text: str, spans: np.ndarray) -> list[list[int]]:
    """Tokens of each word of a text: pieces of a word, with nothing between them, are one; (0, 0) belongs to none."""
    words: list[list[int]] = []
    end = -1
    for token, (first, last) in enumerate(spans.tolist()):
        if last <= first:
            continue
        if first == end and text[first - 1].isalnum() and text[first].isalnum():
            words[-1].append(token)
        else:
            words.append([token])
        end = last
    return words
