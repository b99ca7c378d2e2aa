"""Sections of params.yaml: where photographs and captions come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.values import Count, CountOrZero, Seed


class Scenes(Section):
    """The rendered dataset."""

    train: Count
    val: Count
    test: Count
    probe: Count
    size: Annotated[int, Field(ge=96, le=1024)]
    min_objects: Annotated[int, Field(ge=2)]
    max_objects: Annotated[int, Field(le=9)]
    captions: Count
    siblings: Count
    seed: Seed

    @model_validator(mode="after")
    def _object_range(self) -> Scenes:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} is above max_objects {self.max_objects}")
        return self


class Flickr8k(Section):
    """Flickr8k from its two archives."""

    max_images: CountOrZero


class Flickr30k(Section):
    """Flickr30k in Karpathy's splits or those of Flickr30k Entities."""

    max_images: CountOrZero
    entities: str | None
    splits: Literal["karpathy", "entities"]


class Coco(Section):
    """COCO captions in Karpathy's splits."""

    restval: bool
    captions: CountOrZero
    max_images: CountOrZero


class Folder(Section):
    """Any directory of images with a file of captions."""

    images: str | None
    captions: str | None
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed

    @model_validator(mode="after")
    def _some_are_left_to_train(self) -> Folder:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


class Download(Section):
    """How archives are obtained."""

    mirror: str | None
    offline: bool
    keep_archives: bool
    max_bad: CountOrZero
