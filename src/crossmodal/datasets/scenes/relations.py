"""Truth of claims: references to objects, claims about them, and how they are decided for a scene.

A relation has two thresholds, since people argue about the cases between them: a caption is written only where its
claims hold *strictly*, and counts as false of another scene only where not even the *loose* reading holds.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from crossmodal.datasets.scenes.layout import HOSTS, Scene
from crossmodal.datasets.scenes.shapes import Kind, SceneObject
from crossmodal.datasets.scenes.vocabulary import SIZE_RANK

EXISTS = "exists"
DIRECTIONS = ("left", "right", "above", "below")
COMPARISONS = ("larger", "smaller", "same size")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "top", "bottom", "middle")


@dataclass(frozen=True)
class Reference:
    """Objects as a caption refers to them: None is not mentioned; ``count`` objects are meant."""

    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None
    size: str | None = None
    count: int = 1

    def matches(self, kind: Kind) -> bool:
        return (
            self.shape in (None, kind.shape)
            and self.colour in (None, kind.colour)
            and self.pattern in (None, kind.pattern)
            and self.size in (None, kind.size)
        )

    def found_in(self, scene: Scene) -> list[SceneObject]:
        return [thing for thing in scene if self.matches(thing.kind)]


@dataclass(frozen=True)
class Claim:
    """``relation`` of the subject to ``others``: none for EXISTS and positions, two for "between", else one."""

    relation: str
    subject: Reference
    others: tuple[Reference, ...] = ()


def is_true(claim: Claim, scene: Scene) -> bool:
    """Whether every reference is unambiguous and the relation holds strictly for all that is meant."""
    references = (claim.subject, *claim.others)
    groups = [reference.found_in(scene) for reference in references]
    if any(len(group) != reference.count for group, reference in zip(groups, references, strict=True)):
        return False
    things = [thing for group in groups for thing in group]
    if len({id(thing) for thing in things}) != len(things):
        return False
    return all(holds(claim.relation, *chosen, strict=True) for chosen in itertools.product(*groups))


def may_hold(claim: Claim, scene: Scene) -> bool:
    """Whether the claim holds loosely for any objects that fit its references."""
    groups = [reference.found_in(scene) for reference in claim.others]
    fitting = [
        subject
        for subject in claim.subject.found_in(scene)
        if any(
            holds(claim.relation, subject, *chosen, strict=False)
            for chosen in itertools.product(*groups)
            if len({id(thing) for thing in (subject, *chosen)}) == len(chosen) + 1
        )
    ]
    return len(fitting) >= claim.subject.count


def holds(relation: str, *things: SceneObject, strict: bool) -> bool:
    """Whether a relation holds between objects: the subject first."""
    if relation == EXISTS:
        return True
    if relation in POSITIONS:
        return _is_at(relation, things[0], strict)
    return _TESTS[relation](*things, strict)


def _is_at(position: str, a: SceneObject, strict: bool) -> bool:
    edge = 0.3 if strict else 0.42
    if position == "middle":
        return max(abs(a.x - 0.5), abs(a.y - 0.5)) < (0.1 if strict else 0.2)
    tests = {"top": a.y < edge, "bottom": a.y > 1 - edge, "left": a.x < edge, "right": a.x > 1 - edge}
    # "At the top" alone means the centre is in the upper fifth.
    if position in ("top", "bottom") and strict:
        return (a.y if position == "top" else 1 - a.y) < 0.2
    return all(tests[word] for word in position.split())


def _direction(sign: int, axis: str) -> Callable[[SceneObject, SceneObject, bool], bool]:
    def test(a: SceneObject, b: SceneObject, strict: bool) -> bool:
        along, across = (a.x - b.x, a.y - b.y) if axis == "x" else (a.y - b.y, a.x - b.x)
        along *= sign
        return along >= 0.16 and along > 1.2 * abs(across) if strict else along > 0.05 and along > abs(across) / 3

    return test


def _inside(a: SceneObject, b: SceneObject, strict: bool) -> bool:
    if b.kind.shape not in HOSTS or a.radius > 0.6 * b.radius:
        return False
    return math.hypot(a.x - b.x, a.y - b.y) <= (0.25 if strict else 1.0) * b.radius


def _next(a: SceneObject, b: SceneObject, strict: bool) -> bool:
    distance, reach = math.hypot(a.x - b.x, a.y - b.y), a.radius + b.radius
    if strict:
        return 0.75 * reach <= distance <= reach + 0.05
    return distance <= reach + 0.12


def _between(a: SceneObject, b: SceneObject, c: SceneObject, strict: bool) -> bool:
    across_x, across_y = c.x - b.x, c.y - b.y
    length = math.hypot(across_x, across_y)
    if length < 0.3:
        return False
    along = ((a.x - b.x) * across_x + (a.y - b.y) * across_y) / length**2
    aside = abs((a.x - b.x) * across_y - (a.y - b.y) * across_x) / length
    if strict:
        return 0.25 <= along <= 0.75 and aside < min(0.5 * a.radius + 0.02, 0.15 * length)
    return 0.1 <= along <= 0.9 and aside < a.radius + 0.1


def _size(compare: Callable[[int, int], bool]) -> Callable[[SceneObject, SceneObject, bool], bool]:
    return lambda a, b, strict: compare(SIZE_RANK[a.kind.size], SIZE_RANK[b.kind.size])


_TESTS: dict[str, Callable[..., bool]] = {
    "left": _direction(-1, "x"),
    "right": _direction(1, "x"),
    "above": _direction(-1, "y"),
    "below": _direction(1, "y"),
    "inside": _inside,
    "next": _next,
    "between": _between,
    "larger": _size(operator.gt),
    "smaller": _size(operator.lt),
    "same size": _size(operator.eq),
}
RELATIONS = tuple(_TESTS)
