"""The interface of a caption encoder, for the captions stage and for queries, and the encoding of all captions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from crossmodal.errors import UserError
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import SETTINGS, SHARD_ROWS, FeatureStore, StoreWriter
from crossmodal.runtime import progress
from crossmodal.settings.features import Captions
from crossmodal.settings.params import Params

FEATURES, IDS = "features", "token_ids"  # arrays of the caption store
Row = dict[str, np.ndarray]
Span = tuple[int, int]  # of characters: the first one and the one after the last


@dataclass(frozen=True)
class TextSettings:
    """The text encoder of a matcher.

    settings: for ``models.text.build_text``. size: of its token features. lr_factor: of train.lr for its weights.
    """

    settings: dict[str, Any]
    size: int
    lr_factor: float = 1.0


class CaptionEncoder(ABC):
    """Converts captions to token features, to token ids (of an encoder that is trained with the matcher), or to both.

    The captions stage and a query both call ``rows``: a sentence gets the features of an equal caption, up to the last
    bits, which the padding of a batch can change before rounding to float16.

    arrays: of a caption's row in the store, name -> (dtype, item shape). size: of stored features, None without.
    """

    arrays: Mapping[str, tuple[str, tuple[int, ...]]] = {IDS: ("int32", ())}
    size: int | None = None

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    @classmethod
    @abstractmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        """Load an encoder from the folder of the bert stage or from the ``vocabulary.json`` of a matcher.

        Raises:
            UserError: it is missing or unreadable.
        """

    @classmethod
    def make(cls, settings: Captions, bert: Path, training: Iterable[str]) -> Self:
        """The encoder of the captions stage; its vocabulary may be made from the ``training`` captions."""
        return cls.load(bert, Path(), settings.max_tokens)  # overridden by an encoder with a vocabulary

    def save(self, folder: Path) -> None:  # noqa: B027 (most have nothing to write)
        """Write the files that ``load`` needs besides the bert stage's."""

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
    def positions(cls, bert: Path, captions: Path) -> Callable[[str], tuple[list[int], list[Span]]]:
        """A function of a text that gives the ids of all its tokens and the characters of each; see ``spans``."""
        raise NotImplementedError(f"{cls.__name__} stores no tokens")

    @classmethod
    def spans(cls, bert: Path, captions: Path) -> Callable[[str, Sequence[int]], np.ndarray]:
        """A function of a caption and its stored token ids that gives each token's ``Span``: (L, 2) int32.

        (0, 0) for a token without text. No network is loaded.

        Args:
            bert, captions: folders of these stages.

        Raises:
            UserError: the tokenizer or the vocabulary is missing or unreadable; by the function, if the ids are not
                those of the caption.
        """
        positions = cls.positions(bert, captions)

        def spans(text: str, ids: Sequence[int]) -> np.ndarray:
            all_ids, found = positions(text)
            if list(ids) == all_ids[: len(ids)]:  # whole, or cut off by a tokenizer without an end token
                return np.array(found[: len(ids)], dtype=np.int32)
            inner = len(ids) - 1  # in a truncated caption the end token is moved forward
            if len(all_ids) < len(ids) or list(ids[:inner]) != all_ids[:inner] or ids[-1] != all_ids[-1]:
                raise UserError(f"{captions}: token ids that are not those of {text!r}; run the captions stage again")
            return np.array([*found[:inner], found[-1]], dtype=np.int32)

        return spans

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable | None:
        """The tokens that make up a word, for ``train.word_dropout_kind`` words; None if nothing can be dropped.

        Raises:
            UserError: the tokenizer has no mask token, which this encoder needs.
        """
        return None

    @classmethod
    def text_settings(cls, params: Params, bert: Path, store: FeatureStore, table: TokenTable | None) -> TextSettings:
        """The matcher's text encoder; it has no weights if features are stored."""
        return TextSettings({}, store.arrays[FEATURES][1][0])

    @classmethod
    def training_files(cls, bert: Path, captions: Path, *, table: bool) -> list[Path]:
        """Files of the bert and captions stages that a training reads besides the caption store.

        Args:
            table: whether it reads the ``token_table`` too.
        """
        return []


def store_captions(
    encoder: CaptionEncoder, captions: Sequence[str], folder: Path, *, batch_size: int, chunk: int = SHARD_ROWS
) -> None:
    """Write a store with one row per caption, and the encoder's own files.

    Resumes after the shards in ``folder``. Chunks begin at multiples of ``chunk``, wherever the last shard ended:
    batches, their padding and the last bits of features are those of an uninterrupted run.
    """
    writer = StoreWriter(folder, encoder.arrays)
    done = len(writer)
    bar = progress(total=len(captions), initial=done, desc="captions", unit="caption")
    for start in range(done - done % chunk, len(captions), chunk):
        rows = encoder.rows(captions[start : start + chunk], batch_size)
        for row in rows[max(0, done - start) :]:
            writer.append(row)
            bar.update()
    bar.close()
    writer.close(encoder.metadata)
    encoder.save(folder)
