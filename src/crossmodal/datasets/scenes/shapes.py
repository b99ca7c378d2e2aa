"""Outlines of the shapes, and objects: a kind at a position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

RING_HOLE = 0.62  # of the outer radius


class Kind(NamedTuple):
    """Attributes of an object apart from its position."""

    shape: str
    colour: str
    pattern: str
    size: str


@dataclass(frozen=True)
class SceneObject:
    """Centre of the box (y downwards) and radius as shares of the image's side, angle in degrees."""

    kind: Kind
    x: float
    y: float
    radius: float
    angle: float

    def outline(self) -> np.ndarray:
        """(K, 2) corners (x, y) as shares of the image's side, rotated and translated."""
        turn = math.radians(self.angle)
        matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        corners = unit_outline(self.kind.shape) @ matrix * self.radius
        # Rotation moves the centre of the box; recentre, as a detector predicts boxes.
        return corners - (corners.min(axis=0) + corners.max(axis=0)) / 2 + (self.x, self.y)

    def box(self, size: int) -> tuple[float, float, float, float]:
        """Tight (x1, y1, x2, y2) of the whole shape, in pixels of an image of ``size`` x ``size``."""
        corners = self.outline() * size
        x1, y1 = (float(round(value, 2)) for value in corners.min(axis=0))
        x2, y2 = (float(round(value, 2)) for value in corners.max(axis=0))
        return x1, y1, x2, y2


@cache
def unit_outline(shape: str) -> np.ndarray:
    """(K, 2) corners of a shape around the origin, y downwards, in radii."""
    corners, reach, _ = _OUTLINES[shape]
    lowest, highest = corners.min(axis=0), corners.max(axis=0)
    corners = corners - (lowest + highest) / 2
    corners *= reach / np.abs(corners).max()
    corners.flags.writeable = False
    return corners


def _circle() -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _star() -> np.ndarray:
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, 0.45, 1.0)
    return np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1)


def _cross() -> np.ndarray:
    a = 0.38
    quarter = np.array([[-a, -1], [a, -1], [a, -a]])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn for turn in turns])


def _crescent() -> np.ndarray:
    # The unit disc less a disc of radius r with its centre d to the right; they cross at angle `tip`.
    d, r = 0.5, 0.78
    tip = math.acos((1 + d * d - r * r) / (2 * d))
    inner_tip = math.atan2(math.sin(tip), math.cos(tip) - d)
    outer = np.linspace(tip, 2 * np.pi - tip, 44)
    inner = np.linspace(-inner_tip, inner_tip - 2 * np.pi, 32)[1:-1]
    x = [*np.cos(outer), *(d + r * np.cos(inner))]
    y = [*np.sin(outer), *(r * np.sin(inner))]
    return np.stack([x, y], axis=1)


# Corners; half of the longer side of the box before a turn, in radii, so that equal areas look equally large; the
# largest turn in degrees, either way: a square on its tip would be called a diamond.
_OUTLINES = {
    "circle": (_circle(), 1.0, 180),
    "square": (np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), 0.9, 20),
    "triangle": (np.array([[0.0, -1], [math.sqrt(0.75), 0.5], [-math.sqrt(0.75), 0.5]]), 1.1, 180),
    "star": (_star(), 1.14, 36),
    "heart": (_heart(), 1.02, 35),
    "cross": (_cross(), 1.04, 18),
    "ring": (_circle(), 1.04, 180),
    "crescent": (_crescent(), 1.12, 180),
}
MAX_TURN = {shape: turn for shape, (_, _, turn) in _OUTLINES.items()}
