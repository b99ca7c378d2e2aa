"""Settings that follow from others: the meaning of ``auto``, and which settings determine features and models.

A dependency of the stages in dvc.yaml: unlike the types of params.yaml it can change a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from crossmodal.files.checked_yaml import first_problem
from crossmodal.settings.params import Params

_FITTED = ("regions.per_image", "regions.min_score", "regions.nms")
_BOTTOMUP = (
    "bottomup.selection",
    "bottomup.min_regions",
    "bottomup.max_regions",
    "bottomup.min_score",
    "bottomup.nms",
)
_READING_KEYS = {"regions.backend", "regions.precision", "captions.max_tokens", *_FITTED, *_BOTTOMUP}
WITHOUT_EFFECT = {"executor", "workers", "max_broken"}  # keys of section regions that cannot change a feature


@dataclass(frozen=True)
class BackendSettings:
    """section: of params.yaml, where the network or the files of a region backend are named.

    reads: further settings that an image's regions depend on, by dotted key; None where the features came from files,
    of which nothing is known.
    """

    section: str
    reads: tuple[str, ...] | None = ()


BACKENDS = {
    "torchvision": BackendSettings("detector", _FITTED),
    "grid": BackendSettings("grid"),
    "clip": BackendSettings("clip"),
    "bottomup": BackendSettings("bottomup", _BOTTOMUP),
    "detectron2": BackendSettings("bottomup", _BOTTOMUP),
    "precomputed": BackendSettings("precomputed", None),
}


def region_backend(params: Params) -> str:
    """The region backend in use; ``regions.backend: auto`` depends on the dataset."""
    if params.regions.backend != "auto":
        return params.regions.backend
    return "torchvision" if params.dataset == "scenes" else "grid"


def trains_backbone(params: Params) -> bool:
    """Whether stages of the grid backbone are trained with the model."""
    return region_backend(params) == "grid" and params.grid.trained != 0


def bert_source(params: Params) -> str:
    """The source of BERT in use; ``bert.source: auto`` depends on the dataset."""
    if params.bert.source != "auto":
        return params.bert.source
    return "fit" if params.dataset == "scenes" else "bert-base-uncased"


def region_settings(params: Params) -> dict[str, Any]:
    """Keys of section regions that region features depend on, with the backend in use."""
    return params.regions.model_dump(mode="json", exclude=WITHOUT_EFFECT) | {"backend": region_backend(params)}


def image_reading(params: Params) -> dict[str, Any]:
    """Settings that an image's regions depend on, besides the network in models/detector, by dotted key.

    Stored with the features, so that queries are read as the gallery was, see ``with_reading``. Empty for precomputed
    features, of which nothing is known.
    """
    backend = region_backend(params)
    reads = BACKENDS[backend].reads
    if reads is None:
        return {}
    return {"regions.backend": backend} | {key: _value(params, key) for key in (*reads, "regions.precision")}


def with_reading(params: Params, values: Mapping[str, Any]) -> Params:
    """Settings with other values of the keys that ``image_reading`` and ``captions.encoders.caption_reading`` give.

    Raises:
        ValueError: another key, or a value that the setting does not take.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in _READING_KEYS:
            raise ValueError(f"{key!r} is not a setting that images or captions are read by")
        section, name = key.split(".")
        sections.setdefault(section, getattr(params, section).model_dump())[name] = value
    try:
        changed = {name: type(getattr(params, name)).model_validate(section) for name, section in sections.items()}
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    return params.model_copy(update=changed)


def _value(params: Params, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(params, section), name)


def run_settings(params: Params) -> dict[str, Any]:
    """Settings that determine a trained model, nested: the sections in use, with ``auto`` replaced.

    Logged with the MLflow run, and hashed together with the data into the key by which the run is found again.
    """
    backend = BACKENDS[region_backend(params)].section
    chosen = (params.dataset, params.model, params.captions.encoder)
    trained = ("grid_finetune",) if trains_backbone(params) else ()
    sections = ("regions", backend, *trained, "bert", "captions", "train", "loss", *chosen)
    settings = {name: getattr(params, name).model_dump(mode="json") for name in sections}
    settings["regions"] = region_settings(params)
    settings["bert"]["source"] = bert_source(params)
    return {"seed": params.seed, "model": params.model, "dataset": params.dataset} | settings
