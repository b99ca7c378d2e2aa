"""Sentences of queries, encoded as the captions stage encodes captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crossmodal.batch import Words
from crossmodal.captions.base import FEATURES, IDS
from crossmodal.captions.encoders import ENCODERS
from crossmodal.errors import UserError
from crossmodal.limits import check_sentence
from crossmodal.runtime import loaded_once


class SentenceReader:
    """Token features or ids of single sentences.

    Args:
        encoder: ``captions.encoder`` that a matcher was made for.
        bert: folder of the bert stage. vocabulary: of a BiGRU, ``vocabulary.json``.
        max_tokens: ``captions.max_tokens``.

    Raises:
        UserError: the folder or the file is missing or unreadable.
    """

    def __init__(self, encoder: str, bert: Path, vocabulary: Path, max_tokens: int) -> None:
        self.encoder = ENCODERS[encoder].load(bert, vocabulary, max_tokens)
        self._positions = partial(ENCODERS[encoder].spans, bert, vocabulary.parent)
        self.feature_dim = self.encoder.size  # None if the matcher takes ids
        # A tokenizer keeps the truncation and padding of its last call; after this one they stay the same, so that
        # several threads may share the reader.
        self("a first sentence")

    def __call__(self, sentence: str) -> Words:
        """One sentence: the row that a caption has in the store, as features (1, L, H) or ids (1, L).

        Raises:
            UserError: see ``check_sentence``.
        """
        check_sentence(sentence)
        (row,) = self.encoder.rows([sentence])
        values = torch.from_numpy(row[FEATURES if self.feature_dim else IDS][None])
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        return Words(values.float(), mask) if self.feature_dim else Words(None, mask, values.long())

    def spans(self, sentence: str) -> np.ndarray | None:
        """Characters of each of the sentence's tokens, (L, 2), see ``CaptionEncoder.spans``; None without tokens."""
        if self._spans is None:
            return None
        return self._spans(sentence, self.encoder.ids([sentence])[0])

    @loaded_once
    def _spans(self) -> Callable[[str, Sequence[int]], np.ndarray] | None:
        """None of an encoder that keeps no tokens, or whose tokenizer does not tell where they are."""
        if IDS not in self.encoder.arrays:
            return None
        try:
            return self._positions()
        except UserError:
            return None
