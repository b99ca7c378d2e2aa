"""Sections of params.yaml: region features and token features."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.values import Count, CountOrZero, NotNegative, Positive, Seed, Share

BackendName = Literal["torchvision", "grid", "clip", "bottomup", "detectron2", "precomputed"]  # derived.BACKENDS


class Regions(Section):
    """Region features."""

    backend: Literal["auto", BackendName]
    per_image: Count
    min_score: Share
    nms: Annotated[float, Field(gt=0, le=1)]
    batch_size: Count
    precision: Literal["fp32", "bf16", "fp16"]
    workers: CountOrZero
    max_broken: CountOrZero
    executor: Literal["local", "ray"]


class RayCluster(Section):
    """The cluster of ``regions.executor: ray``."""

    address: str | None
    workers: Count
    gpus: NotNegative


class Precomputed(Section):
    """Region features that others have made."""

    format: Literal["tsv", "scan", "grid", "npz"]
    path: str | None
    max_missing: CountOrZero


class Detector(Section):
    """The fitted Faster R-CNN."""

    epochs: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
    width: Annotated[int, Field(ge=8, multiple_of=8)]
    feature_dim: Count
    seed: Seed


class Grid(Section):
    """The timm backbone of grid features."""

    model: str
    kwargs: dict[str, Any]
    weights: str
    image_size: Annotated[int, Field(ge=32)]
    mean: tuple[float, float, float] | None
    std: tuple[Positive, Positive, Positive] | None
    trained: CountOrZero | Literal["all"]


class GridFinetune(Section):
    """The last stages of the grid backbone, trained with the model."""

    lr_factor: Positive
    frozen_epochs: CountOrZero
    batch_norm: Literal["frozen", "updated"]
    crop_scale: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    checkpointing: bool


class Bottomup(Section):
    """The published bottom-up attention detector, and which of its proposals become regions."""

    weights: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    names: str | None
    selection: Literal["caffe", "airsplay"]
    min_regions: Count
    max_regions: Count
    min_score: Share
    nms: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _region_range(self) -> Bottomup:
        if self.min_regions > self.max_regions:
            raise ValueError(f"min_regions {self.min_regions} is above max_regions {self.max_regions}")
        return self


class Bert(Section):
    """The text encoder: obtained, or fitted on the training captions and further ones."""

    source: str
    layers: CountOrZero
    captions: str | None
    objective: Literal["masked", "pairs"]
    vocab_size: Annotated[int, Field(ge=100)]
    fit_layers: Count
    hidden_size: Count
    heads: Count
    epochs: Count
    batch_size: Count
    lr: Positive
    precision: Literal["fp32", "bf16"]
    mask: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed

    @model_validator(mode="after")
    def _heads_divide(self) -> Bert:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


EncoderName = Literal["bert", "bert_finetune", "bigru", "clip"]  # captions.encoders.ENCODERS


class Captions(Section):
    """Token features, or token ids where the encoder is trained with the model."""

    encoder: EncoderName
    max_tokens: Annotated[int, Field(ge=4, le=512)]
    batch_size: Count
    vocabulary: str
    min_count: Count


class Bigru(Section):
    """Word embeddings and a bidirectional GRU, trained with the model."""

    embed_dim: Count
    hidden: Count
    dropout: Share


class BertFinetune(Section):
    """BERT trained with the model."""

    lr_factor: Positive
