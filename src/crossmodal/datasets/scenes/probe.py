"""The compositional probe: pairs of images with the same objects, and captions that differ only in word order.

In a "relation" pair two objects have exchanged positions ("a red circle left of a blue square" against "a blue square
left of a red circle"), in an "attribute" pair their colours or patterns. Each caption is false of the other image.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from crossmodal.datasets.scenes.captions import Caption, facts_of, list_objects, refer, say
from crossmodal.datasets.scenes.layout import (
    Scene,
    arrange,
    draw_kinds,
    exchange_attribute,
    pick,
    swap_positions,
    with_kinds,
)
from crossmodal.datasets.scenes.relations import DIRECTIONS, Claim, Reference, is_true
from crossmodal.datasets.scenes.wording import Wording

COLOUR_ODDS = 0.7  # an attribute pair exchanges colours, else patterns
LIST_ODDS = 0.5  # an attribute pair names two objects, else it relates them
BETWEEN_ODDS = 0.15  # a relation pair says "between", else a direction


class Pair(NamedTuple):
    """Two scenes, each with its caption."""

    scenes: tuple[Scene, Scene]
    captions: tuple[Caption, Caption]


def draw_pair(rng: np.random.Generator, kind: str, lowest: int, highest: int) -> Pair:
    """One pair of ``kind`` "relation" or "attribute", with ``lowest`` to ``highest`` objects."""
    draw = {"relation": _relation_pair, "attribute": _attribute_pair}[kind]
    while True:
        scene = arrange(rng, draw_kinds(rng, int(rng.integers(lowest, highest + 1))))
        pair = draw(rng, scene)
        if pair is not None and _is_sound(pair):
            return pair


def _is_sound(pair: Pair) -> bool:
    words = [Counter(caption.text.replace(",", " ,").split()) for caption in pair.captions]
    return words[0] == words[1] and all(
        all(is_true(claim, scene) for claim in caption.claims) and not caption.may_describe(other)
        for scene, caption, other in zip(pair.scenes, pair.captions, reversed(pair.scenes), strict=True)
    )


def _relation_pair(rng: np.random.Generator, scene: Scene) -> Pair | None:
    facts = facts_of(scene)
    names = ["between"] if rng.random() < BETWEEN_ODDS else [name for name in DIRECTIONS if name in facts]
    if not names or names[0] not in facts:
        return None
    name = pick(rng, names)
    i, j, *rest = pick(rng, facts[name])[1]
    swapped = swap_positions(scene, i, j)
    references = [refer(rng, scene, index) for index in (i, j, *rest)]
    if swapped is None or None in references:
        return None
    one, two, *others = references
    claims = Claim(name, one, (two, *others)), Claim(name, two, (one, *others))
    wording = Wording(rng)
    return Pair((scene, swapped), tuple(say(claim, wording) for claim in claims))


def _attribute_pair(rng: np.random.Generator, scene: Scene) -> Pair | None:
    attribute = "colour" if rng.random() < COLOUR_ODDS else "pattern"
    i, j = (int(k) for k in rng.permutation(len(scene))[:2])
    kinds = [thing.kind for thing in scene]
    swapped = with_kinds(scene, exchange_attribute(kinds, i, j, attribute))
    if kinds[i].shape == kinds[j].shape or getattr(kinds[i], attribute) == getattr(kinds[j], attribute):
        return None
    before = [_naming(rng, scene, index, attribute) for index in (i, j)]
    after = [replace(ref, **{attribute: getattr(before[1 - k], attribute)}) for k, ref in enumerate(before)]
    facts = facts_of(scene)
    related = [name for name in (*DIRECTIONS, "inside", "next") if (name, (i, j)) in facts.get(name, ())]
    wording = Wording(rng)
    if related and rng.random() >= LIST_ODDS:
        name = pick(rng, related)
        captions = [say(Claim(name, one, (two,)), wording) for one, two in (before, after)]
    else:
        captions = [list_objects(references, wording) for references in (before, after)]
    return Pair((scene, swapped), tuple(captions))


def _naming(rng: np.random.Generator, scene: Scene, index: int, attribute: str) -> Reference:
    """A reference by shape and ``attribute``, and sometimes by more."""
    kind = scene[index].kind
    extra = pick(rng, (None, None, None, "size", "colour" if attribute == "pattern" else "pattern"))
    return Reference(**{field: getattr(kind, field) for field in {"shape", attribute, extra} if field})
