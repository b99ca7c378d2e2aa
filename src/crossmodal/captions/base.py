"""The interface of a caption encoder: it reads captions, for the captions stage and for a query alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from crossmodal.captions.spans import Positions, SpanReader, check_ids
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import SETTINGS, FeatureStore
from crossmodal.settings.params import Captions, Params

FEATURES, IDS = "features", "token_ids"  # arrays of the caption store
Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class TextSettings:
    """The text encoder of a matcher.

    settings: for ``models.text.build_text``. size: of its token features. lr_factor: of train.lr for its weights.
    """

    settings: dict[str, Any]
    size: int
    lr_factor: float = 1.0


class CaptionEncoder(ABC):
    """Reads captions as token features, as token ids (of an encoder that is trained with the matcher), or as both.

    The captions stage and a query both call ``rows``: a sentence gets the features of an equal caption, but for the
    last bits, which the padding of a batch can change before they are rounded to float16.

    arrays: of a caption's row in the store, name -> (dtype, item shape). size: of stored features, None without.
    """

    arrays: Mapping[str, tuple[str, tuple[int, ...]]] = {IDS: ("int32", ())}
    size: int | None = None

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    @classmethod
    @abstractmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        """Load an encoder, from whichever of the two paths it needs.

        Args:
            bert: folder of the bert stage. vocabulary: ``vocabulary.json`` of the captions stage or of an imported
                matcher.

        Raises:
            UserError: it is missing or unreadable.
        """

    @classmethod
    def make(cls, settings: Captions, bert: Path, training: Iterable[str]) -> Self:
        """The encoder of the captions stage, which may be counted in the ``training`` captions."""
        return cls.load(bert, Path(), settings.max_tokens)  # an encoder with a vocabulary has a ``make`` of its own

    def save(self, folder: Path) -> None:  # noqa: B027 (most have nothing to write)
        """Write the files into the stage's folder that ``load`` needs in addition to the bert stage's."""

    @classmethod
    def reading(cls, max_tokens: int) -> dict[str, Any]:
        """Settings that a caption's row depends on, by dotted key."""
        return {"captions.max_tokens": max_tokens}

    @property
    def metadata(self) -> dict[str, Any]:
        """Kept in the index of the store."""
        return {SETTINGS: self.reading(self.max_tokens)}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most ``max_tokens``."""
        raise NotImplementedError(f"{type(self).__name__} stores no ids")

    def features(self, ids: Sequence[list[int]], batch_size: int) -> list[np.ndarray]:
        """Token features (L, size) float16 of captions, from their ids."""
        raise NotImplementedError(f"{type(self).__name__} stores no features")

    def rows(self, texts: Sequence[str], batch_size: int = 1) -> list[Row]:
        """Rows of the store, see ``arrays``; a network reads ``batch_size`` texts together.

        Raises:
            UserError: the tokenizer cannot read a text.
        """
        ids = self.ids(texts)
        rows: list[Row] = [{IDS: np.asarray(row)} for row in ids]
        if self.size:
            for row, values in zip(rows, self.features(ids, batch_size), strict=True):
                row[FEATURES] = values
        return rows

    @classmethod
    def positions(cls, bert: Path, captions: Path) -> Positions:
        """See ``spans``; the function gives the ids of all tokens of a text and the characters of each."""
        raise NotImplementedError(f"{cls.__name__} stores no tokens")

    @classmethod
    def spans(cls, bert: Path, captions: Path) -> SpanReader:
        """A function of a caption and its stored token ids that gives the characters of each token: (L, 2) int32.

        They are the first one and the one after the last; (0, 0) for a token without text. No network is loaded.

        Args:
            bert: the bert stage's folder. captions: that of the captions stage.

        Raises:
            UserError: the tokenizer or the vocabulary is missing or unreadable; by the function, where the ids are
                not those of the caption.
        """
        return check_ids(cls.positions(bert, captions), captions)

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable | None:
        """Which tokens make a word, for ``train.word_dropout_kind`` words; None where nothing can be dropped.

        Raises:
            UserError: words are to be masked, and the tokenizer has no token for it.
        """
        return None

    @classmethod
    def text_settings(cls, params: Params, bert: Path, store: FeatureStore, table: TokenTable | None) -> TextSettings:
        """The matcher's text encoder, which has nothing to do where features are stored."""
        return TextSettings({}, store.arrays[FEATURES][1][0])
