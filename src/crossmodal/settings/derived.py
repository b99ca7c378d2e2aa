"""Settings that follow from others: the meaning of ``auto``, and which settings determine features and models.

A dependency of the stages in dvc.yaml: unlike the types of params.yaml it can change a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import first_problem
from crossmodal.files.checksums import file_checksum
from crossmodal.runtime import setting_path
from crossmodal.settings.params import Params
from crossmodal.settings.training import MATRIX_LOSSES, Loss, check_candidates

_FITTED = ("regions.per_image", "regions.min_score", "regions.nms")
_BOTTOMUP = ("bottomup.selection", "bottomup.min_regions", "bottomup.max_regions", "bottomup.min_score", "bottomup.nms")
COSTLY = ("sgraf", "imram")  # models whose training step is nearly all scoring of pairs
CANDIDATES = 48  # loss.candidates: auto, of these
_TRAINED_ENCODERS = {"bigru", "bert_finetune"}  # have a section of params.yaml that the train stage reads
_READING_KEYS = {"regions.backend", "regions.precision", "captions.max_tokens", *_FITTED, *_BOTTOMUP}


@dataclass(frozen=True)
class BackendSettings:
    """section: of params.yaml, where the network or the files of a region backend are named.

    network: keys of it that the network depends on; None: all of them.
    reads: further settings that an image's regions depend on, by dotted key; None where the features came from files,
    of which nothing is known.
    """

    section: str
    reads: tuple[str, ...] | None = ()
    network: tuple[str, ...] | None = None

    @property
    def imported(self) -> bool:
        """Whether the features come from files, so that there is no network that reads photographs."""
        return self.reads is None


_PUBLISHED_DETECTOR = BackendSettings("bottomup", _BOTTOMUP, ("weights", "sha256", "names"))
BACKENDS = {
    "torchvision": BackendSettings("detector", _FITTED),
    "grid": BackendSettings("grid"),
    "clip": BackendSettings("clip"),
    "bottomup": _PUBLISHED_DETECTOR,
    "detectron2": _PUBLISHED_DETECTOR,
    "precomputed": BackendSettings("precomputed", None, ()),
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


def loss_in_use(params: Params) -> Loss:
    """The section ``loss`` with ``loss.candidates: auto`` replaced: some pairs of a batch where each costs much.

    Raises:
        UserError: they are no more than ``train.neighbours``.
    """
    if params.loss.candidates != "auto":
        return params.loss
    some = params.model in COSTLY and params.loss.name in MATRIX_LOSSES
    candidates = CANDIDATES if some else 0
    try:
        check_candidates(candidates, params.train)
    except ValueError as error:
        raise UserError(f"params.yaml: {error}") from None
    return params.loss.model_copy(update={"candidates": candidates})


def further_captions(params: Params) -> Path | None:
    """The file of captions that a fitted BERT reads besides the training captions; None where there is none.

    Raises:
        UserError: ``bert.captions`` is no file.
    """
    if bert_source(params) != "fit" or params.bert.captions is None:
        return None
    path = setting_path(params.bert.captions)
    if not path.is_file():
        raise UserError(f"bert.captions {str(path)!r}: no such file; give one, or null")
    return path


def settings_in_use(params: Params) -> dict[str, dict[str, Any]]:
    """Settings of the region backend, BERT and caption encoder in use, by the stage they affect, ``auto`` replaced.

    The settings stage writes them to files, on which these stages depend in dvc.yaml: settings of a backend, BERT or
    encoder that is not in use rerun nothing.
    """
    backend = region_backend(params)
    part = BACKENDS[backend]
    section = getattr(params, part.section).model_dump(mode="json")
    detector = {part.section: {key: section[key] for key in (section if part.network is None else part.network)}}
    if part.imported:
        regions = {"regions.backend": backend, part.section: section}
    else:
        regions = image_reading(params) | {"regions.batch_size": params.regions.batch_size}
    source = bert_source(params)
    if source == "clip":
        bert = {"clip.source": params.clip.source}
    elif source == "fit":
        bert = _fitting(params)
    else:
        bert = {"layers": params.bert.layers}
    bert["source"] = source
    encoder = params.captions.encoder
    train = {encoder: getattr(params, encoder).model_dump(mode="json") if encoder in _TRAINED_ENCODERS else {}}
    if trains_backbone(params):
        train["grid_finetune"] = params.grid_finetune.model_dump(mode="json")
    return {"detector": detector, "regions": regions, "bert": bert, "train": train}


def _fitting(params: Params) -> dict[str, Any]:
    """Settings of a BERT that is fitted here, with the checksum of the captions that are not of the dataset."""
    values = params.bert.model_dump(mode="json", exclude={"source", "layers"})
    for key, value in (("captions", None), ("objective", "masked"), ("precision", "fp32")):
        if values[key] == value:  # as before there was the setting: what was fitted then is fitted so now
            del values[key]
    if params.bert.captions is not None:
        path = setting_path(params.bert.captions)
        values["captions_sha256"] = None  # where the encoder is and the file it was fitted on is not
        if path.is_file():
            values["captions_sha256"] = file_checksum(path)
    return values


def image_reading(params: Params) -> dict[str, Any]:
    """Settings that an image's regions depend on, besides the network in models/detector, by dotted key.

    Stored with the features, so that queries are read as the gallery was, see ``with_reading``. Empty for precomputed
    features, of which nothing is known.
    """
    backend = region_backend(params)
    reads = BACKENDS[backend].reads
    if reads is None:
        return {}
    return {"regions.backend": backend} | {key: attrgetter(key)(params) for key in (*reads, "regions.precision")}


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


def run_settings(params: Params) -> dict[str, Any]:
    """Settings that determine a trained model, nested: the sections in use, with ``auto`` replaced.

    Logged with the MLflow run, and hashed together with the data into the key by which the run is found again.
    """
    backend = BACKENDS[region_backend(params)].section
    chosen = (params.dataset, params.model, params.captions.encoder)
    trained = ("grid_finetune",) if trains_backbone(params) else ()
    sections = (backend, *trained, "captions", "train", "loss", *chosen)
    settings = {name: getattr(params, name).model_dump(mode="json") for name in sections}
    settings["loss"] = loss_in_use(params).model_dump(mode="json")
    in_use = settings_in_use(params)
    regions = {key.removeprefix("regions."): value for key, value in in_use["regions"].items() if "regions." in key}
    settings |= {"regions": regions, "bert": in_use["bert"]}
    return {"seed": params.seed, "model": params.model, "dataset": params.dataset} | settings
