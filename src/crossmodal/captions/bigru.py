"""Captions as ids of the words that a BiGRU embeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from crossmodal.captions.base import CaptionEncoder, Span, TextSettings
from crossmodal.captions.vocabulary import Vocabulary, fetch_vocabulary
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore
from crossmodal.settings.features import Captions
from crossmodal.settings.params import Params

_FILE = "vocabulary.json"
MASK = "<mask>"


class WordIds(CaptionEncoder):
    """``captions.encoder`` bigru: <start>, the words, <end>."""

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        super().__init__(max_tokens)
        self.vocabulary = vocabulary

    @classmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        return cls(Vocabulary.load(vocabulary), max_tokens)

    @classmethod
    def make(cls, settings: Captions, bert: Path, training: Iterable[str]) -> Self:
        return cls(fetch_vocabulary(settings.vocabulary, training, settings.min_count), settings.max_tokens)

    def save(self, folder: Path) -> None:
        self.vocabulary.save(folder / _FILE)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.vocabulary.encode(text, self.max_tokens) for text in texts]

    @classmethod
    def positions(cls, bert: Path, captions: Path) -> Callable[[str], tuple[list[int], list[Span]]]:
        return Vocabulary.load(captions / _FILE).positions

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable:
        """Every token is a word, <start> and <end> included, as published.

        The published code adds <mask> to its vocabulary; if it is missing, its id is the one after the last word's.
        """
        vocabulary = Vocabulary.load(captions / _FILE)
        mask = vocabulary.ids.get(MASK, len(vocabulary))
        return TokenTable(np.zeros(max(len(vocabulary), mask + 1), dtype=bool), mask, ends=False)

    @classmethod
    def training_files(cls, bert: Path, captions: Path, *, table: bool) -> list[Path]:
        return [captions / _FILE]

    @classmethod
    def text_settings(cls, params: Params, bert: Path, store: FeatureStore, table: TokenTable | None) -> TextSettings:
        words = len(Vocabulary.load(store.folder / _FILE)) if table is None else len(table.continues)
        return TextSettings({"vocabulary": words, **params.bigru.model_dump()}, params.bigru.hidden)
