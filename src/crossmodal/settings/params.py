"""params.yaml as typed settings, checked as a whole.

A section is a class, in the file of this folder that its subject names; the comments of params.yaml say what a setting
means. No field has a default: params.yaml is the only place where a value is set. What a stage reads is declared in
dvc.yaml, so these files are not dependencies of the stages; changing a check here cannot change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError, field_validator, model_validator

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import Section, first_problem, read_yaml
from crossmodal.settings import datasets, evaluation, features, models, training
from crossmodal.settings.values import Seed


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    model: str
    dataset: Literal["scenes", "flickr8k", "flickr30k", "coco", "folder"]
    scenes: datasets.Scenes
    flickr8k: datasets.Flickr8k
    flickr30k: datasets.Flickr30k
    coco: datasets.Coco
    folder: datasets.Folder
    download: datasets.Download
    regions: features.Regions
    ray: features.RayCluster
    precomputed: features.Precomputed
    detector: features.Detector
    grid: features.Grid
    grid_finetune: features.GridFinetune
    bottomup: features.Bottomup
    bert: features.Bert
    captions: features.Captions
    bigru: features.Bigru
    bert_finetune: features.BertFinetune
    train: training.Train
    loss: training.Loss
    tern: models.Tern
    teran: models.Teran
    vsepp: models.Vsepp
    vse_infty: models.VseInfty
    scan: models.Scan
    imram: models.Imram
    sgraf: models.Sgraf
    vsrn: models.Vsrn
    esa: models.Esa
    xdim: models.Xdim
    chan: models.Chan
    clip: models.Clip
    relevance: evaluation.Relevance
    evaluate: evaluation.Evaluate
    report: evaluation.Report
    gate: evaluation.Gate

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, name: str) -> str:
        kinds = {key: field.annotation for key, field in cls.model_fields.items()}
        known = [key for key, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, models.ModelSection)]
        if name not in known:
            raise ValueError(f"input should be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
        return name

    @model_validator(mode="after")
    def _clip_is_clip_throughout(self) -> Params:
        parts = {
            "model": self.model,
            "regions.backend": self.regions.backend,
            "captions.encoder": self.captions.encoder,
            "bert.source": self.bert.source,
        }
        others = [key for key, value in parts.items() if value != "clip"]
        if 0 < len(others) < len(parts):
            found = next(key for key, value in parts.items() if value == "clip")
            overrides = " ".join(f"-S {key}=clip" for key in others)
            raise ValueError(f"{found} clip: clip goes with clip, in all four keys or in none; add {overrides}")
        return self

    @model_validator(mode="after")
    def _features_have_a_path(self) -> Params:
        if self.regions.backend == "precomputed" and self.precomputed.path is None:
            raise ValueError("precomputed.path: null; regions.backend precomputed needs a file or folder there")
        return self

    @model_validator(mode="after")
    def _batches_have_negatives(self) -> Params:
        train, loss = self.train, self.loss
        same_image_counts = loss.name in training.MATRIX_LOSSES and not loss.mask_same_image
        if train.captions_per_image >= train.batch_size and not same_image_counts:
            raise ValueError(
                f"train.batch_size {train.batch_size}: a batch may be of one image, "
                f"train.captions_per_image {train.captions_per_image}, and leave loss.name {loss.name} no negatives; "
                "use a larger batch"
            )
        return self

    @model_validator(mode="after")
    def _candidates_are_drawn(self) -> Params:
        if self.loss.candidates != "auto":  # what that stands for: settings/derived.py
            training.check_candidates(self.loss.candidates, self.train)
        return self

    @property
    def model_settings(self) -> Section:
        """The section of the chosen model."""
        return getattr(self, self.model)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: file missing or not YAML; unknown or missing key; wrong type; value out of range. The
            message names the file, the first offending key, what was found and what is allowed.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected sections of settings, found {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
