"""Settings that follow from others: what ``auto`` stands for, and which settings determine features and models.

A dependency of the stages in dvc.yaml: unlike the types of params.yaml it can change a result.
"""

from __future__ import annotations

from typing import Any

from crossmodal.params import Params

WITHOUT_EFFECT = {"executor", "workers", "max_broken"}  # keys of section regions that cannot change a feature
_BACKEND_SECTIONS = {name: name for name in ("grid", "clip", "bottomup", "precomputed")} | {"detectron2": "bottomup"}


def region_backend(params: Params) -> str:
    """The region backend in use; ``regions.backend: auto`` depends on the dataset."""
    if params.regions.backend != "auto":
        return params.regions.backend
    return "torchvision" if params.dataset == "scenes" else "grid"


def bert_source(params: Params) -> str:
    """The source of BERT in use; ``bert.source: auto`` depends on the dataset."""
    if params.bert.source != "auto":
        return params.bert.source
    return "fit" if params.dataset == "scenes" else "bert-base-uncased"


def region_settings(params: Params) -> dict[str, Any]:
    """Keys of section regions that region features depend on, with the backend in use."""
    return params.regions.model_dump(mode="json", exclude=WITHOUT_EFFECT) | {"backend": region_backend(params)}


def run_settings(params: Params) -> dict[str, Any]:
    """Settings that determine a trained model, nested: the sections in use, with ``auto`` replaced.

    Logged with the MLflow run, and hashed together with the data into the key by which the run is found again.
    """
    backend = _BACKEND_SECTIONS.get(region_backend(params), "detector")
    sections = ("regions", backend, "bert", "captions", "train", "loss", params.dataset, params.model)
    if params.captions.encoder != "bert":
        sections += (params.captions.encoder,)
    settings = {name: getattr(params, name).model_dump(mode="json") for name in sections}
    settings["regions"] = region_settings(params)
    settings["bert"]["source"] = bert_source(params)
    return {"seed": params.seed, "model": params.model, "dataset": params.dataset} | settings
