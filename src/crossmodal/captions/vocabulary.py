"""The vocabulary of a BiGRU: the words of the training captions, or those of an imported matcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import PreTokenizedString, normalizers, pre_tokenizers

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json, write_json
from crossmodal.runtime import setting_path

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # ids 0 to 3, as in SCAN's vocabularies
NORMALIZER = normalizers.BertNormalizer(lowercase=True)
SPLITTER = pre_tokenizers.BertPreTokenizer()


class Vocabulary:
    """Words by id. ``words``: the special ones first.

    Words of published vocabularies, which were split in another way, may contain punctuation ("t-shirt", "'s"): they
    are recognised where their parts follow each other.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.ids = {word: number for number, word in enumerate(self.words)}
        self._joined = {word for word in self.words[len(SPECIAL) :] if len(split_words(word)) > 1}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str, max_tokens: int) -> list[int]:
        """<start>, the words, <end>; at most ``max_tokens`` ids, <end> among them."""
        unknown = self.ids["<unk>"]
        words = [self.ids.get(word, unknown) for word in self._split(caption)][: max_tokens - 2]
        return [self.ids["<start>"], *words, self.ids["<end>"]]

    def positions(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of the whole caption, and the characters of each: the first one and the one after the last."""
        parts = split_spans(caption)
        ids = self.encode(caption, len(parts) + 2)
        spans = []
        for number in ids[1:-1]:
            (word, (first, last)), *parts = parts
            while number >= len(SPECIAL) and word != self.words[number]:
                (part, (_, last)), *parts = parts
                word += part
            spans.append((first, last))
        return ids, [(0, 0), *spans, (0, 0)]

    def _split(self, caption: str) -> list[str]:
        """``split_words``, with the longest runs of parts that are words of this vocabulary joined."""
        if not self._joined:
            return split_words(caption)
        words = []
        for chunk in caption.split():
            parts = split_words(chunk)
            while parts:
                ends = range(len(parts), 1, -1)
                end = next((end for end in ends if "".join(parts[:end]) in self._joined), 1)
                words.append("".join(parts[:end]))
                parts = parts[end:]
        return words

    def save(self, path: Path) -> None:
        """Write the words as a JSON list."""
        write_json(path, self.words, indent=0, ensure_ascii=False)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what ``save`` wrote.

        Raises:
            UserError: missing, or no list of words.
        """
        words = read_json(path, list, advice="run the captions stage first")
        if not all(isinstance(word, str) for word in words) or tuple(words[: len(SPECIAL)]) != SPECIAL:
            raise UserError(f"{path}: not a vocabulary (a list of words that begins with {', '.join(SPECIAL)})")
        return cls(words)


def split_words(caption: str) -> list[str]:
    """Lower-case words and punctuation marks, as BERT's basic tokenizer splits them."""
    text = NORMALIZER.normalize_str(caption)
    return [word for word, _ in SPLITTER.pre_tokenize_str(text)]


def split_spans(caption: str) -> list[tuple[str, tuple[int, int]]]:
    """The words of ``split_words``, each with the positions of its characters in the caption."""
    text = PreTokenizedString(caption)
    text.normalize(NORMALIZER.normalize)
    SPLITTER.pre_tokenize(text)
    return [(word, span) for word, span, _ in text.get_splits("original", "char")]


def count_vocabulary(captions: Iterable[str], min_count: int) -> Vocabulary:
    """Words that occur at least ``min_count`` times, most frequent first, ties in alphabetical order."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    return Vocabulary([*SPECIAL, *kept])


def fetch_vocabulary(source: str, captions: Iterable[str], min_count: int) -> Vocabulary:
    """The vocabulary of ``captions.vocabulary``: ``count``, or the vocabulary.json of an imported matcher.

    Raises:
        UserError: there is no such file, or it is not a vocabulary.
    """
    if source == "count":
        return count_vocabulary(captions, min_count)
    path = setting_path(source)
    if not path.is_file():
        raise UserError(f"captions.vocabulary {source!r}: no such file; give one, or count")
    return Vocabulary.load(path)
