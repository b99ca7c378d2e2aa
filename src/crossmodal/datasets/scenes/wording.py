"""The word choices of a caption, and which of its words describe which object.

A caption makes each choice of words once (``Wording``): it does not call one colour by two names, and two
captions made with the same wording differ in nothing but what they say. The probe pairs depend on that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from crossmodal.datasets.scenes.layout import pick
from crossmodal.datasets.scenes.relations import Reference
from crossmodal.datasets.scenes.vocabulary import ADJECTIVES, RELATION_PHRASES

T = TypeVar("T")

USUAL_ODDS = 0.6  # the first word of a list is taken with this probability, else any of them

# Characters that no caption has, around each word that describes an object: OPENS, the phrase's number, word, CLOSES.
OPENS, CLOSES, FIRST_NUMBER = "\ue000", "\ue001", 0xE100
MARKED = re.compile(f"{OPENS}(.)([^{CLOSES}]*){CLOSES}")


@dataclass(frozen=True)
class Mention:
    """A noun phrase for one object: its reference, and the characters of each word that describes the object."""

    reference: Reference
    words: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sentence:
    """A caption's text and what it mentions, in the order of the text."""

    text: str
    mentions: tuple[Mention, ...]


class Wording:
    """The word choices of one caption: the same key always gives the same word."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._chosen: dict[Hashable, object] = {}
        self._phrases: list[Reference] = []

    def mark(self, reference: Reference) -> Callable[[str], str]:
        """A function that marks a word of a new noun phrase as one that describes the object; none of several."""
        if reference.count > 1:
            return str
        opens = OPENS + chr(FIRST_NUMBER + len(self._phrases))
        self._phrases.append(reference)
        return lambda word: f"{opens}{word}{CLOSES}" if word else ""

    def sentence(self, marked: str) -> Sentence:
        """The text without marks, and the phrases that were marked in it."""
        text, end, words = "", 0, {}
        for found in MARKED.finditer(marked):
            text += marked[end : found.start()]
            words.setdefault(ord(found[1]) - FIRST_NUMBER, []).append((len(text), len(text) + len(found[2])))
            text, end = text + found[2], found.end()
        mentions = tuple(Mention(self._phrases[number], tuple(spans)) for number, spans in words.items())
        return Sentence(text + marked[end:], mentions)

    def choose(self, key: Hashable, options: Sequence[T], *, usual: bool = False) -> T:
        """The option taken for ``key``; with ``usual`` the first one is the likeliest."""
        if self._chosen.get(key) not in options:
            first = usual and self._rng.random() < USUAL_ODDS
            self._chosen[key] = options[0] if first else pick(self._rng, options)
        return self._chosen[key]  # type: ignore[return-value]

    def chance(self, key: Hashable, odds: float) -> bool:
        """A random yes or no with these odds, drawn once per key."""
        if key not in self._chosen:
            self._chosen[key] = bool(self._rng.random() < odds)
        return bool(self._chosen[key])

    def relation(self, name: str) -> str:
        return self.choose(("relation", name), RELATION_PHRASES[name], usual=True)

    def adjective(self, value: str | None) -> str:
        return self.choose(value, ADJECTIVES[value], usual=True) if value else ""
