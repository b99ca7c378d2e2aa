"""The words that a BiGRU embeds: counted in the training captions alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json, write_json
from crossmodal.runtime import setting_path

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # ids 0 to 3, as in SCAN's vocabularies
NORMALIZER = normalizers.BertNormalizer(lowercase=True)
SPLITTER = pre_tokenizers.BertPreTokenizer()


class Vocabulary:
    """Words by id. ``words``: the special ones first.

    A word may hold punctuation ("t-shirt", "'s"), as those of published vocabularies do, which were split in
    another way: it is recognised where its parts follow each other.
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

    def _split(self, caption: str) -> list[str]:
        """``split_words``, but for the longest run of parts that is a word of this vocabulary."""
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


def count_vocabulary(captions: Iterable[str], min_count: int) -> Vocabulary:
    """Words that occur at least ``min_count`` times, most frequent first, ties in alphabetical order."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    return Vocabulary([*SPECIAL, *kept])


def obtain_vocabulary(source: str, captions: Iterable[str], min_count: int) -> Vocabulary:
    """What ``captions.vocabulary`` names: ``count``, or the vocabulary.json of an imported matcher.

    Raises:
        UserError: there is no such file, or it is no vocabulary.
    """
    if source == "count":
        return count_vocabulary(captions, min_count)
    path = setting_path(source)
    if not path.is_file():
        raise UserError(f"captions.vocabulary {source!r}: no such file; give one, or count")
    return Vocabulary.load(path)
