"""Pixels: textured background, anti-aliased objects, light and noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from crossmodal.datasets.phrases import Phrase
from crossmodal.datasets.records import ImageRecord
from crossmodal.datasets.scenes.layout import Scene, pick
from crossmodal.datasets.scenes.plan import plan_group
from crossmodal.datasets.scenes.shapes import RING_HOLE, SceneObject
from crossmodal.datasets.scenes.vocabulary import COLOURS
from crossmodal.settings.datasets import Scenes

FINE = 3  # subpixels a side: objects are drawn this much larger, then averaged
QUALITY = 92

# Muted, of middle brightness: black and white objects contrast with all of them.
BACKGROUNDS = (
    (176, 168, 152),
    (150, 160, 168),
    (148, 164, 148),
    (184, 176, 176),
    (160, 146, 134),
    (132, 140, 152),
)
STRIPE_PERIOD = 0.46  # of the radius; half of it is stripe
DOT_SPACING = 0.56  # of the radius
DOT_RADIUS = 0.29  # of the spacing
RIM = 0.006  # width of the darker rim, of the image's side


def render(scene: Scene, size: int, seed: tuple[int, ...]) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size``; ``seed`` decides background, light and noise."""
    rng = np.random.default_rng(seed)
    canvas = Image.fromarray(_background(rng, size))
    for thing in sorted(scene, key=lambda thing: -thing.radius):
        patch, mask, corner = _draw(thing, size)
        canvas.paste(patch, corner, mask)
    light = rng.uniform(0.85, 1.12) + rng.uniform(-0.06, 0.06, 3)
    pixels = rng.standard_normal((size, size, 3), np.float32)
    pixels *= np.float32(rng.uniform(2, 6))
    pixels += np.asarray(canvas) * light.astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) uint8: a muted colour with blotches, streaks or weave, and a gradient across."""
    colour = np.array(pick(rng, BACKGROUNDS), np.float32) + rng.uniform(-10, 10, 3).astype(np.float32)
    rows, columns = pick(rng, ((7, 7), (20, 20), (40, 3), (3, 40), (48, 48)))
    coarse = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32))
    texture = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) * rng.uniform(5, 11)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.uniform(-12, 12, 2)
    shade = texture + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return np.clip(colour + shade[..., None], 0, 255).astype(np.uint8)


def _draw(thing: SceneObject, size: int) -> tuple[Image.Image, Image.Image, tuple[int, int]]:
    """(RGB patch, coverage mask, top left pixel) of one object; no larger than the object."""
    corners = thing.outline() * size
    left, top = np.floor(corners.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    extent = ((right - left) * FINE, (bottom - top) * FINE)
    # Pillow's corners are pixel centres, an outline's are points.
    outline = _points((corners - (left, top)) * FINE - 0.5)
    mask = Image.new("L", extent, 0)
    brush = ImageDraw.Draw(mask)
    brush.polygon(outline, fill=255)
    edges = [outline]
    if thing.kind.shape == "ring":
        centre = np.array([thing.x, thing.y]) * size
        hole = _points((centre + (corners - centre) * RING_HOLE - (left, top)) * FINE - 0.5)
        brush.polygon(hole, fill=0)
        edges.append(hole)
    base, _ = COLOURS[thing.kind.colour]
    patch = Image.new("RGB", extent, base)
    brush = ImageDraw.Draw(patch)
    _decorate(brush, thing, (np.array([thing.x, thing.y]) * size - (left, top)) * FINE, size * FINE)
    rim = tuple(int(0.55 * value) for value in base)
    width = max(2, round(2 * RIM * size * FINE))
    for edge in edges:
        # Round joints are slow, and the many corners of a curved outline do without.
        brush.line([*edge, *edge[:2]], fill=rim, width=width, joint="curve" if len(edge) < 20 else None)
    return patch.reduce(FINE), mask.reduce(FINE), (int(left), int(top))


def _points(corners: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in corners]


def _decorate(brush: ImageDraw.ImageDraw, thing: SceneObject, centre: np.ndarray, scale: int) -> None:
    """Stripes or dots over the whole patch; ``centre`` and ``scale`` are in the patch's own subpixels."""
    radius, accent = thing.radius * scale, COLOURS[thing.kind.colour][1]
    turn = math.radians(thing.angle)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) * radius
    if thing.kind.pattern == "striped":
        for k in np.arange(-4, 4):
            top, bottom = k * STRIPE_PERIOD, (k + 0.5) * STRIPE_PERIOD
            band = np.array([[-2, top], [2, top], [2, bottom], [-2, bottom]])
            brush.polygon(_points(band @ axes + centre), fill=accent)
    if thing.kind.pattern == "dotted":
        for row in range(-3, 4):
            for column in range(-3, 4):
                dot = np.array([column + 0.5 * (row % 2), row]) * DOT_SPACING
                brush.circle(tuple(dot @ axes + centre), DOT_RADIUS * DOT_SPACING * radius, fill=accent)


def render_group(folder: Path, settings: Scenes, split: str, number: int) -> list[tuple[ImageRecord, list[Phrase]]]:
    """Draw the images of one group (see ``plan.groups_of``) into ``folder``; its subfolders exist."""
    planned = plan_group(settings, split, number)
    for image in planned:
        pixels = render(image.scene, settings.size, image.canvas)
        pixels.save(folder / image.path, quality=QUALITY, subsampling=0)
    return [(image.record(settings.size), image.phrases(settings.size)) for image in planned]
