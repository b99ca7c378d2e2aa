"""WordNet synsets of a word, from the dictionary of METEOR 1.5 that SPICE reads."""

from __future__ import annotations

import zipfile
from pathlib import Path

# WordNet's detachment rules of nouns, verbs and adjectives, in METEOR's order (morphy(7WN)).
_ENDINGS = "s ses xes zes ches shes men ies", "s ies es es ed ed ing ing", "er est er est"
_INSTEAD = "- s x z ch sh man y", "- y e - e - e -", "- - e e"  # -: nothing
_RULES = [
    (ending, instead.strip("-"))
    for endings, others in zip(_ENDINGS, _INSTEAD, strict=True)
    for ending, instead in zip(endings.split(), others.split(), strict=True)
]


class Synonyms:
    """``synsets`` of a word or phrase, read from ``Meteor-1.5.jar``."""

    def __init__(self, jar: Path) -> None:
        with zipfile.ZipFile(jar) as archive:
            sets, exceptions = (
                archive.read(f"synonym/english.{name}").decode().splitlines() for name in ("synsets", "exceptions")
            )
        self._sets = dict(zip(sets[::2], sets[1::2], strict=True))
        self._bases: dict[str, list[str]] = {}
        for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
            for form in forms.split():
                self._bases.setdefault(form, []).append(base)

    def synsets(self, word: str) -> set[int]:
        """Numbers of the synsets of a word and of its base forms; empty if there are none."""
        name = word.strip().lower().replace(" ", "_")
        forms = [name, *(self._bases.get(name) or self._detached(name))]
        return {int(number) for form in forms for number in self._sets.get(form, "").split()}

    def _detached(self, name: str) -> list[str]:
        """The word itself where no ending may be taken from it, else the first form that is a word."""
        if name.endswith("ss") or len(name) <= 2:
            return [name]
        forms = (name.removesuffix(ending) + instead for ending, instead in _RULES if name.endswith(ending))
        return [form for form in forms if form in self._sets][:1]
