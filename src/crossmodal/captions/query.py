"""Sentences of queries, encoded as the captions stage encodes captions."""

from __future__ import annotations

from pathlib import Path

import torch

from crossmodal.batch import Words
from crossmodal.captions.base import FEATURES, IDS
from crossmodal.captions.encoders import ENCODERS
from crossmodal.errors import UserError
from crossmodal.limits import check_sentence, shown


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
            UserError: see ``check_text``.
        """
        check_text(sentence)
        (row,) = self.encoder.rows([sentence])
        values = torch.from_numpy(row[FEATURES if self.feature_dim else IDS][None])
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        return Words(values.float(), mask) if self.feature_dim else Words(None, mask, values.long())


def check_text(sentence: str) -> None:
    """Refuse a text that cannot be searched for.

    Raises:
        UserError: too long (see ``limits``), empty, or not UTF-8.
    """
    check_sentence(sentence)
    try:
        sentence.encode()
    except UnicodeEncodeError:  # from a terminal with another encoding
        raise UserError(f"the sentence {shown(sentence)} is not UTF-8 text") from None
    if not sentence.strip():
        raise UserError("the sentence is empty; give one such as 'two dogs running on grass'")
