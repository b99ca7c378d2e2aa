"""Layout of scenes, and families of scenes that show the same objects at other positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from crossmodal.datasets.scenes.shapes import MAX_TURN, Kind, SceneObject
from crossmodal.datasets.scenes.vocabulary import COLOURS, PATTERNS, SHAPES, SIZE_RANK, SIZES

T = TypeVar("T")
Scene = tuple[SceneObject, ...]

MARGIN = 0.012  # of the image's side, kept free at the border
HOSTS = ("circle", "square", "heart", "ring")  # large ones can hold a small object
MAX_FILL = 0.075  # most that the squared radii of a scene may add up to

SIZE_ODDS = (("small", 0.4), ("medium", 0.36), ("large", 0.24))
INSIDE_ODDS = 0.7  # a scene that can have one object inside another does
HOST_ODDS = 0.4  # a large object gets a shape that can hold a small one
LOOKALIKE_ODDS = 0.3  # an object takes shape or colour from a former one
TWIN_ODDS = 0.06  # an object repeats a former one, so that there is something to count


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of ``items``, all equally likely (``Generator.choice`` is ten times slower and makes arrays)."""
    return items[int(rng.integers(len(items)))]


def draw_kinds(rng: np.random.Generator, count: int) -> list[Kind]:
    """``count`` kinds that fit into one scene, mostly distinct in colour and shape."""
    while True:
        sizes = [_draw_size(rng) for _ in range(count)]
        if sum(SIZES[size][1] ** 2 for size in sizes) <= MAX_FILL:
            break
    kinds: list[Kind] = []
    for size in sizes:
        while True:
            kind = Kind(pick(rng, SHAPES), pick(rng, tuple(COLOURS)), pick(rng, PATTERNS), size)
            if size == "large" and rng.random() < HOST_ODDS:
                kind = kind._replace(shape=pick(rng, HOSTS))
            if kinds and rng.random() < TWIN_ODDS:
                kinds.append(pick(rng, kinds)._replace(size=size))
                break
            if kinds and rng.random() < LOOKALIKE_ODDS:
                model = pick(rng, kinds)
                same_shape = rng.random() < 0.5
                kind = kind._replace(shape=model.shape) if same_shape else kind._replace(colour=model.colour)
            if all(kind[:2] != other[:2] for other in kinds):
                kinds.append(kind)
                break
    return kinds


def _draw_size(rng: np.random.Generator) -> str:
    level = rng.random()
    for size, odds in SIZE_ODDS:
        level -= odds
        if level < 0:
            return size
    return SIZE_ODDS[-1][0]


def arrange(rng: np.random.Generator, kinds: Sequence[Kind]) -> Scene:
    """A scene of these kinds, in their order; objects may touch or overlap a little."""
    spacing = float(rng.uniform(0.9, 1.2))
    guest, host = _nested_pair(rng, kinds)
    order = sorted(range(len(kinds)), key=lambda i: (i == guest, -SIZE_RANK[kinds[i].size]))
    while True:
        arranged: dict[int, SceneObject] = {}
        for i in order:
            anchor = arranged[host] if i == guest else None
            found = _find_position(rng, kinds[i], list(arranged.values()), spacing, anchor)
            if found is None:
                break
            arranged[i] = found
        else:
            return tuple(arranged[i] for i in range(len(kinds)))
        spacing *= 0.97


def _nested_pair(rng: np.random.Generator, kinds: Sequence[Kind]) -> tuple[int, int]:
    """(guest, host): indices of a small object that shall lie inside a large one, or (-1, -1)."""
    pairs = [
        (i, j)
        for i, small in enumerate(kinds)
        for j, large in enumerate(kinds)
        if small.size == "small" and large.size == "large" and large.shape in HOSTS
        if small.colour != large.colour and small.shape != "ring"
    ]
    return pick(rng, pairs) if pairs and rng.random() < INSIDE_ODDS else (-1, -1)


def _find_position(
    rng: np.random.Generator,
    kind: Kind,
    others: Sequence[SceneObject],
    spacing: float,
    host: SceneObject | None,
) -> SceneObject | None:
    radius = float(rng.uniform(*SIZES[kind.size]))
    angle = float(rng.uniform(-MAX_TURN[kind.shape], MAX_TURN[kind.shape]))
    for _ in range(30):
        if host is None:
            x, y = rng.uniform(radius, 1 - radius, 2)
        else:
            x, y = rng.uniform(-0.08, 0.08, 2) * host.radius + (host.x, host.y)
        found = SceneObject(kind, float(x), float(y), radius, angle)
        if in_frame(found) and all(apart(found, other, spacing) for other in others if other is not host):
            return found
    return None


def in_frame(thing: SceneObject) -> bool:
    """Whether the whole shape lies within the image."""
    corners = thing.outline()
    return bool(corners.min() >= MARGIN and corners.max() <= 1 - MARGIN)


def apart(a: SceneObject, b: SceneObject, spacing: float) -> bool:
    """Whether two centres are at least ``spacing`` times the summed radii from each other."""
    return math.hypot(a.x - b.x, a.y - b.y) >= spacing * (a.radius + b.radius)


def swap_positions(scene: Scene, i: int, j: int) -> Scene | None:
    """The scene with objects i and j at each other's position, or None if they do not fit."""
    things = list(scene)
    things[i] = replace(scene[i], x=scene[j].x, y=scene[j].y)
    things[j] = replace(scene[j], x=scene[i].x, y=scene[i].y)
    for k in (i, j):
        others = [other for index, other in enumerate(things) if index != k]
        if not in_frame(things[k]) or not all(apart(things[k], other, 0.85) for other in others):
            return None
    return tuple(things)


def exchange_attribute(kinds: Sequence[Kind], i: int, j: int, attribute: str) -> list[Kind]:
    """The kinds with one attribute ("colour", "pattern") of i and j exchanged."""
    changed = list(kinds)
    changed[i] = kinds[i]._replace(**{attribute: getattr(kinds[j], attribute)})
    changed[j] = kinds[j]._replace(**{attribute: getattr(kinds[i], attribute)})
    return changed


def draw_family(rng: np.random.Generator, siblings: int, lowest: int, highest: int) -> list[Scene]:
    """``siblings`` scenes of the same ``lowest`` to ``highest`` objects.

    The second scene is the first with the positions of two objects exchanged, the third with their colours exchanged,
    the fourth with both; further ones show the objects of the first or third at new positions.
    """
    while True:
        scene = arrange(rng, draw_kinds(rng, int(rng.integers(lowest, highest + 1))))
        pairs = [pair for pair in itertools.combinations(range(len(scene)), 2) if _distinguishes(scene, *pair)]
        if not pairs:
            continue
        i, j = pick(rng, pairs)
        kinds = [thing.kind for thing in scene]
        rebound = exchange_attribute(kinds, i, j, "colour")
        swapped = swap_positions(scene, i, j)
        if swapped is None:
            continue
        family = [scene, swapped, with_kinds(scene, rebound), with_kinds(swapped, rebound)][:siblings]
        while len(family) < siblings:
            family.append(arrange(rng, pick(rng, (kinds, rebound))))
        return family


def _distinguishes(scene: Scene, i: int, j: int) -> bool:
    """Whether exchanging i and j, positions or colours, changes a clear caption."""
    a, b = scene[i], scene[j]
    near, far = sorted((abs(a.x - b.x), abs(a.y - b.y)))
    return a.kind.shape != b.kind.shape and a.kind.colour != b.kind.colour and far >= 0.2 and far > 1.2 * near


def with_kinds(scene: Scene, kinds: Sequence[Kind]) -> Scene:
    """The scene with other kinds of objects at the same positions."""
    return tuple(replace(thing, kind=kind) for thing, kind in zip(scene, kinds, strict=True))
