"""Captions of an image: claims that are true of it, unambiguous, and mostly false of its siblings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from crossmodal.datasets.scenes import grammar
from crossmodal.datasets.scenes.grammar import CHAIN_FRAMES, CLAUSE_FRAMES, SHARED_FRAMES
from crossmodal.datasets.scenes.layout import Scene, pick
from crossmodal.datasets.scenes.relations import (
    COMPARISONS,
    DIRECTIONS,
    EXISTS,
    POSITIONS,
    RELATIONS,
    Claim,
    Reference,
    holds,
    is_true,
    may_hold,
)
from crossmodal.datasets.scenes.wording import Sentence, Wording

RELATIONAL_ODDS = 0.74
ATTEMPTS = 8  # candidates among which the one that fewest siblings share is taken

# Probability of mentioning an attribute that is not needed.
COLOUR_ODDS = 0.95
SHAPE_ODDS = 0.93
PATTERN_ODDS = {"plain": 0.05, "striped": 0.2, "dotted": 0.2}
SIZE_ODDS = {"small": 0.2, "medium": 0.04, "large": 0.2}
FIELDS = ("shape", "colour", "pattern", "size")

# Relations that are drawn as one, and how often.
RELATION_SORTS = ((DIRECTIONS, 20), (("inside",), 4), (("between",), 3), (("next",), 3), (COMPARISONS, 2))

# A relation: its name and the indices of its objects, the subject first.
Fact = tuple[str, tuple[int, ...]]
Facts = dict[str, list[Fact]]


@dataclass(frozen=True)
class Caption:
    """A sentence and the claims it makes, all of which are true of its scene."""

    sentence: Sentence
    claims: tuple[Claim, ...]

    @property
    def text(self) -> str:
        return self.sentence.text

    @property
    def relational(self) -> bool:
        return any(claim.others for claim in self.claims)

    def may_describe(self, scene: Scene) -> bool:
        """Whether the caption could pass for a description of the scene."""
        return all(may_hold(claim, scene) for claim in self.claims)


def facts_of(scene: Scene) -> Facts:
    """Every relation that holds strictly, by name."""
    facts: Facts = {}
    for name in RELATIONS:
        found = [
            (name, indices)
            for indices in itertools.permutations(range(len(scene)), 3 if name == "between" else 2)
            if holds(name, *(scene[i] for i in indices), strict=True)
        ]
        if found:
            facts[name] = found
    return facts


def refer(rng: np.random.Generator, scene: Scene, index: int, *, vivid: bool = True) -> Reference | None:
    """A reference that fits exactly one object of the scene, as short as people make them.

    With ``vivid`` it names the colour or the pattern. None if the object has a double.
    """
    kind = scene[index].kind
    odds = {
        "shape": SHAPE_ODDS,
        "colour": COLOUR_ODDS,
        "pattern": PATTERN_ODDS[kind.pattern],
        "size": SIZE_ODDS[kind.size],
    }
    said = [name for name in FIELDS if rng.random() < odds[name]]
    if "colour" not in said and ("shape" not in said or (vivid and "pattern" not in said)):
        said.append("colour")
    last = ("pattern", "size") if rng.random() < 0.5 else ("size", "pattern")
    # Attributes still needed to identify it; "a medium-sized dotted thing" is the last resort.
    missing = [name for name in ("shape", "colour", *last) if name not in said]
    for extra in range(len(missing) + 1):
        reference = Reference(**{name: getattr(kind, name) for name in (*said, *missing[:extra])})
        if len(reference.found_in(scene)) == 1:
            return reference
    return None


def _claim(rng: np.random.Generator, scene: Scene, fact: Fact | None) -> Claim | None:
    if fact is None:
        return None
    name, indices = fact
    vivid = int(rng.integers(len(indices)))
    references = [refer(rng, scene, index, vivid=order == vivid) for order, index in enumerate(indices)]
    if any(reference is None for reference in references):
        return None
    # "the red one is larger than the small one" says its size twice.
    if name in COMPARISONS:
        references = [_without_size(reference, scene) for reference in references]
    claim = Claim(name, references[0], tuple(references[1:]))
    return claim if is_true(claim, scene) else None


def _without_size(reference: Reference, scene: Scene) -> Reference:
    shorter = replace(reference, size=None)
    return shorter if len(shorter.found_in(scene)) == reference.count else reference


def _draw_fact(rng: np.random.Generator, facts: Facts, names: Sequence[str] = RELATIONS) -> Fact | None:
    """A fact of these names; its sort is drawn first, since directions would otherwise dominate."""
    sorts = [
        available
        for sort, weight in RELATION_SORTS
        if (available := [name for name in sort if name in facts and name in names])
        for _ in range(weight)
    ]
    return pick(rng, facts[pick(rng, pick(rng, sorts))]) if sorts else None


def say(claim: Claim | None, wording: Wording) -> Caption | None:
    """The caption of one relation or position."""
    return Caption(grammar.say_relation(claim, wording), (claim,)) if claim else None


# The makers below return a caption, or None if the scene does not allow that kind.


def _single(rng: np.random.Generator, scene: Scene, facts: Facts) -> Caption | None:
    return say(_claim(rng, scene, _draw_fact(rng, facts)), Wording(rng))


def _comparing(rng: np.random.Generator, scene: Scene, facts: Facts) -> Caption | None:
    """'a red circle to the left of a larger star'"""
    fact = _draw_fact(rng, facts, (*DIRECTIONS, "next"))
    claim = _claim(rng, scene, fact)
    if claim is None:
        return None
    subject, other = (scene[index] for index in fact[1])
    for comparative in ("larger", "smaller"):
        if holds(comparative, other, subject, strict=True):
            first = replace(claim, others=(_without_size(claim.others[0], scene),))
            second = Claim(comparative, first.others[0], (first.subject,))
            if first.others[0].size is None and is_true(second, scene):
                return Caption(grammar.say_relation(first, Wording(rng), comparative), (first, second))
    return None


def _plural(rng: np.random.Generator, scene: Scene, facts: Facts) -> Caption | None:
    """'two circles above a red star'"""
    group = _group(rng, scene)
    if group is None:
        return None
    other = refer(rng, scene, int(rng.integers(len(scene))))
    if other is None:
        return None
    true = [claim for name in (*DIRECTIONS, "next") if is_true(claim := Claim(name, group, (other,)), scene)]
    return say(pick(rng, true), Wording(rng)) if true else None


def _group(rng: np.random.Generator, scene: Scene) -> Reference | None:
    """Two or three objects that share a shape, a colour or both."""
    kind = pick(rng, scene).kind
    fields = pick(rng, (("shape",), ("colour",), ("shape", "colour"), ("shape", "pattern"), ("shape", "size")))
    reference = Reference(**{field: getattr(kind, field) for field in fields})
    count = len(reference.found_in(scene))
    return replace(reference, count=count) if 2 <= count <= 4 else None


def _shares_subject(first: Fact, second: Fact) -> bool:
    subject, *others = second[1]
    same_sort = (second[0] in COMPARISONS) == (first[0] in COMPARISONS)
    return second[0] != first[0] and same_sort and subject == first[1][0] and first[1][1] not in others


def _two(frames: tuple[str, ...], rng: np.random.Generator, scene: Scene, facts: Facts) -> Caption | None:
    """Two relations, joined as ``frames`` says.

    SHARED_FRAMES: 'a star above a red circle and to the left of a blue square'
    CHAIN_FRAMES: 'a star above a red circle that is to the left of a blue square'
    CLAUSE_FRAMES: 'a star is above a red circle while a ring is to the left of a blue square'
    """
    first = _draw_fact(rng, facts)
    if first is None or (first[0] == "between" and frames is not CLAUSE_FRAMES):
        return None
    fits = {
        SHARED_FRAMES: _shares_subject,
        CHAIN_FRAMES: lambda first, second: second[1][0] == first[1][1] and first[1][0] not in second[1],
        CLAUSE_FRAMES: lambda first, second: not set(second[1]) & set(first[1]),
    }[frames]
    fitting = {
        name: chosen for name, found in facts.items() if (chosen := [fact for fact in found if fits(first, fact)])
    }
    second = _draw_fact(rng, fitting)
    one, two = _claim(rng, scene, first), _claim(rng, scene, second)
    if one is None or two is None:
        return None
    if frames is SHARED_FRAMES:
        two = replace(two, subject=one.subject)
    elif frames is CHAIN_FRAMES:
        two = replace(two, subject=one.others[0])
    return Caption(grammar.say_two(one, two, frames, Wording(rng)), (one, two)) if is_true(two, scene) else None


def _with_extra(rng: np.random.Generator, scene: Scene, facts: Facts) -> Caption | None:
    fact = _draw_fact(rng, facts)
    claim = _claim(rng, scene, fact)
    rest = [index for index in range(len(scene)) if fact and index not in fact[1]]
    extra = refer(rng, scene, pick(rng, rest)) if rest else None
    if claim is None or extra is None:
        return None
    return Caption(grammar.say_with_extra(claim, extra, Wording(rng)), (claim, Claim(EXISTS, extra)))


def _list(rng: np.random.Generator, scene: Scene) -> Caption | None:
    indices = [int(i) for i in rng.permutation(len(scene))[: int(rng.integers(2, 4))]]
    references = [refer(rng, scene, index) for index in indices]
    group = _group(rng, scene) if rng.random() < 0.5 else None
    if group is not None:
        # Objects listed next to a group must not belong to it.
        references = [
            group,
            *(ref for ref, i in zip(references, indices, strict=True) if not group.matches(scene[i].kind)),
        ]
    return None if None in references else list_objects(references, Wording(rng))


def list_objects(references: Sequence[Reference], wording: Wording) -> Caption:
    """'a star and a red circle'"""
    return Caption(grammar.say_list(references, wording), tuple(Claim(EXISTS, each) for each in references))


def _position(rng: np.random.Generator, scene: Scene) -> Caption | None:
    index = int(rng.integers(len(scene)))
    positions = [name for name in POSITIONS if holds(name, scene[index], strict=True)]
    reference = refer(rng, scene, index)
    if not positions or reference is None:
        return None
    return say(Claim(pick(rng, positions), reference), Wording(rng))


def _total(rng: np.random.Generator, scene: Scene) -> Caption | None:
    reference = refer(rng, scene, int(rng.integers(len(scene))))
    if reference is None:
        return None
    claims = (Claim(EXISTS, Reference(count=len(scene))), Claim(EXISTS, reference))
    return Caption(grammar.say_total(len(scene), reference, Wording(rng)), claims)


RELATIONAL = (
    (_single, 70),
    (_with_extra, 12),
    (_comparing, 12),
    (partial(_two, SHARED_FRAMES), 10),
    (partial(_two, CHAIN_FRAMES), 9),
    (partial(_two, CLAUSE_FRAMES), 6),
    (_plural, 24),
)
OTHER = ((_list, 3), (_position, 8), (_total, 1))


def write_captions(
    rng: np.random.Generator, scene: Scene, siblings: Sequence[Scene], count: int
) -> tuple[Caption, ...]:
    """``count`` different captions of a scene; siblings are the other scenes of its family."""
    facts = facts_of(scene)
    written: list[Caption] = []
    while len(written) < count:
        relational = rng.random() < RELATIONAL_ODDS and bool(facts)
        caption = _most_telling(rng, scene, facts if relational else {}, siblings, written)
        if caption is not None:
            written.append(caption)
    return tuple(written)


def _most_telling(
    rng: np.random.Generator,
    scene: Scene,
    facts: Facts,
    siblings: Sequence[Scene],
    written: Sequence[Caption],
) -> Caption | None:
    """The candidate, different from those written, that describes the fewest siblings."""
    best, best_score, tries = None, float("inf"), 0
    makers = [maker for maker, weight in (RELATIONAL if facts else OTHER) for _ in range(weight)]
    for _ in range(20 * ATTEMPTS):
        maker = pick(rng, makers)
        caption = maker(rng, scene, facts) if facts else maker(rng, scene)
        if caption is None or any(caption.text == other.text for other in written):
            continue
        shared = sum(caption.may_describe(sibling) for sibling in siblings)
        score = shared if caption.relational else max(0, shared - 1)
        if score < best_score:
            best, best_score = caption, score
        tries += 1
        if best_score == 0 or tries == ATTEMPTS:
            break
    return best
