"""The images of the dataset: scenes and captions, without pixels.

A split is planned in groups (families of siblings, probe pairs) that depend on nothing but the settings and
their own number, so that any number of processes gives the same dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.phrases import Phrase
from crossmodal.datasets.records import SPLITS, GroundTruth, ImageRecord
from crossmodal.datasets.scenes.captions import Caption, write_captions
from crossmodal.datasets.scenes.layout import Scene, draw_family
from crossmodal.datasets.scenes.probe import draw_pair
from crossmodal.settings.datasets import Scenes


@dataclass(frozen=True)
class PlannedImage:
    """An image before it is drawn; images of the same ``canvas`` seed share background, light and noise."""

    id: str
    split: str
    scene: Scene
    captions: tuple[Caption, ...]
    canvas: tuple[int, ...]

    @property
    def path(self) -> str:
        return f"images/{self.split}/{self.id}.jpg"

    def record(self, size: int) -> ImageRecord:
        """The image's record; ``size`` is its side in pixels."""
        captions = tuple(caption.text for caption in self.captions)
        objects = tuple(
            GroundTruth(thing.box(size), thing.kind.shape, f"{thing.kind.colour} {thing.kind.pattern}")
            for thing in self.scene
        )
        return ImageRecord(self.id, self.path, self.split, size, size, captions, objects)

    def phrases(self, size: int) -> list[Phrase]:
        """The phrases of its captions that name one object; ``size`` as in ``record``."""
        return [
            Phrase(self.id, number, mention.words, tuple(thing.box(size) for thing in things))
            for number, caption in enumerate(self.captions)
            for mention in caption.sentence.mentions
            if len(things := mention.reference.found_in(self.scene)) == 1
        ]


def groups_of(settings: Scenes) -> list[tuple[str, int]]:
    """(split, number) of every group, in the order of the records."""
    families = [
        (split, number)
        for split in ("train", "val", "test")
        for number in range(-(-getattr(settings, split) // settings.siblings))
    ]
    return families + [("probe", number) for number in range(settings.probe)]


def plan_group(settings: Scenes, split: str, number: int) -> list[PlannedImage]:
    """The images of one family, or of one probe pair."""
    return _plan_pair(settings, number) if split == "probe" else _plan_family(settings, split, number)


def _plan_family(settings: Scenes, split: str, number: int) -> list[PlannedImage]:
    first = number * settings.siblings
    count = min(settings.siblings, getattr(settings, split) - first)
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    family = draw_family(rng, count, settings.min_objects, settings.max_objects)
    planned = []
    for i, scene in enumerate(family):
        captions = write_captions(rng, scene, family[:i] + family[i + 1 :], settings.captions)
        canvas = (settings.seed, SPLITS.index(split), first + i, 1)
        planned.append(PlannedImage(f"{split}-{first + i:05d}", split, scene, captions, canvas))
    return planned


def _plan_pair(settings: Scenes, number: int) -> list[PlannedImage]:
    kind = "relation" if 2 * number < settings.probe else "attribute"
    rng = np.random.default_rng([settings.seed, SPLITS.index("probe"), number])
    pair = draw_pair(rng, kind, settings.min_objects, settings.max_objects)
    canvas = (settings.seed, SPLITS.index("probe"), number, 1)
    return [
        PlannedImage(f"probe-{number:04d}-{kind}-{letter}", "probe", scene, (caption,), canvas)
        for letter, scene, caption in zip("ab", pair.scenes, pair.captions, strict=True)
    ]
