"""The characters of a caption that each of its stored tokens covers, so that a picture can point at words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import PreTokenizedString, Tokenizer

from crossmodal.captions.vocabulary import NORMALIZER, SPECIAL, SPLITTER, Vocabulary
from crossmodal.errors import UserError

SpanReader = Callable[[str, Sequence[int]], np.ndarray]
Positions = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


def check_ids(read: Positions, captions: Path) -> SpanReader:
    """``read`` as a function of a caption and its stored ids, which are compared; see ``CaptionEncoder.spans``."""

    def spans(text: str, ids: Sequence[int]) -> np.ndarray:
        all_ids, characters = read(text)
        inner = len(ids) - 1  # of a caption that was cut, the last token is moved up
        if len(all_ids) < len(ids) or list(ids[:inner]) != all_ids[:inner] or ids[-1] != all_ids[-1]:
            raise UserError(f"{captions}: token ids that are not those of {text!r}; run the captions stage again")
        return np.array([*characters[:inner], characters[-1]], dtype=np.int32)

    return spans


def split_spans(caption: str) -> list[tuple[str, tuple[int, int]]]:
    """The words of ``captions.vocabulary.split_words``, each with its characters' positions in the caption."""
    text = PreTokenizedString(caption)
    text.normalize(NORMALIZER.normalize)
    SPLITTER.pre_tokenize(text)
    return [(word, span) for word, span, _ in text.get_splits("original", "char")]


def positions_of_tokenizer(path: Path) -> Positions:
    """Of a BERT's tokenizer: all ids of a text, and the characters of each.

    Raises:
        UserError: the file is missing or unreadable.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; run the bert stage first")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises is a plain Exception
        raise UserError(f"{path}: not a readable tokenizer ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def positions(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = tokenizer.encode(text)
        return encoded.ids, encoded.offsets

    return positions


def positions_in_vocabulary(vocabulary: Vocabulary, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The same of a BiGRU's words; a word of the vocabulary may be several parts of the text."""
    parts = split_spans(text)
    ids = vocabulary.encode(text, len(parts) + 2)
    spans = []
    for number in ids[1:-1]:
        (word, (first, last)), parts = parts[0], parts[1:]
        while number >= len(SPECIAL) and word != vocabulary.words[number]:
            (part, (_, last)), parts = parts[0], parts[1:]
            word += part
        spans.append((first, last))
    return ids, [(0, 0), *spans, (0, 0)]
