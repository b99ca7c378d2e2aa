"""Captions as ids of the words that a BiGRU embeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from crossmodal.captions.base import CaptionEncoder, TextSettings
from crossmodal.captions.spans import Positions, positions_in_vocabulary
from crossmodal.captions.token_table import table_of_vocabulary
from crossmodal.captions.vocabulary import Vocabulary, obtain_vocabulary
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore
from crossmodal.settings.params import Captions, Params

_FILE = "vocabulary.json"


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
        return cls(obtain_vocabulary(settings.vocabulary, training, settings.min_count), settings.max_tokens)

    def save(self, folder: Path) -> None:
        self.vocabulary.save(folder / _FILE)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.vocabulary.encode(text, self.max_tokens) for text in texts]

    @classmethod
    def positions(cls, bert: Path, captions: Path) -> Positions:
        return partial(positions_in_vocabulary, Vocabulary.load(captions / _FILE))

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable | None:
        return table_of_vocabulary(Vocabulary.load(captions / _FILE))

    @classmethod
    def text_settings(cls, params: Params, bert: Path, store: FeatureStore, table: TokenTable | None) -> TextSettings:
        words = len(Vocabulary.load(store.folder / _FILE)) if table is None else len(table.continues)
        return TextSettings({"vocabulary": words, **params.bigru.model_dump()}, params.bigru.hidden)
