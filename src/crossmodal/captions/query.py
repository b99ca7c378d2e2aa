"""Sentences of queries, encoded as the captions stage encodes captions."""

from __future__ import annotations

from pathlib import Path

import torch

from crossmodal.batch import Words
from crossmodal.captions.base import FEATURES, IDS
from crossmodal.captions.encoders import ENCODERS
from crossmodal.limits import check_sentence


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
