"""params.yaml as typed settings, checked as a whole.

No field has a default: params.yaml is the only place where a value is set. What a stage reads is declared
in dvc.yaml, so this file is not a dependency of the stages; changing a check here cannot change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crossmodal.errors import UserError

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys and lossy conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

    max_images: CountOrNone


class Download(Section):
    """How archives are obtained."""

    mirror: str | None
    max_bad: CountOrNone


class Regions(Section):
    """Region features."""

    backend: Literal["auto", "torchvision", "grid"]
    per_image: Count
    min_score: Share
    nms: Annotated[float, Field(gt=0, le=1)]
    batch_size: Count


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


class Bert(Section):
    """The text encoder: obtained, or fitted on the training captions."""

    source: str
    layers: CountOrNone
    vocab_size: Annotated[int, Field(ge=100)]
    fit_layers: Count
    hidden_size: Count
    heads: Count
    epochs: Count
    batch_size: Count
    lr: Positive
    mask: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed

    @model_validator(mode="after")
    def _heads_divide(self) -> Bert:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class Captions(Section):
    """Token features, or token ids where the encoder is trained with the model."""

    encoder: Literal["bert", "bert_finetune", "bigru"]
    max_tokens: Annotated[int, Field(ge=4, le=512)]
    batch_size: Count
    min_count: Count


class Bigru(Section):
    """Word embeddings and a bidirectional GRU, trained with the model."""

    embed_dim: Count
    hidden: Count
    dropout: Share


class BertFinetune(Section):
    """BERT trained with the model."""

    lr_factor: Positive


class Train(Section):
    """The training loop."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    captions_per_image: Count
    neighbours: Count
    accumulate: Count
    precision: Literal["fp32", "bf16"]
    optimizer: Literal["adam", "adamw"]
    lr: Positive
    weight_decay: NotNegative
    clip: NotNegative
    schedule: Literal["constant", "step", "cosine", "plateau", "onecycle"]
    warmup_steps: CountOrNone
    step_epochs: Count
    gamma: Annotated[float, Field(gt=0, le=1)]
    plateau_patience: CountOrNone
    region_dropout: Share
    word_dropout: Share
    patience: CountOrNone
    workers: CountOrNone


class Loss(Section):
    """What training minimises."""

    name: Literal["hinge", "infonce"]
    margin: Positive
    negatives: Literal["hard", "all"]
    all_negatives_epochs: CountOrNone
    temperature: Positive
    mask_same_image: bool


class Tern(Section):
    """Transformer Encoder Reasoning Network."""

    embed_dim: Count
    visual_dim: Count
    visual_layers: CountOrNone
    text_layers: CountOrNone
    layers: CountOrNone
    heads: Count
    feed_forward: Count
    shared: bool
    positions: Literal["concat", "sum", "none"]
    location_scale: Positive
    aggregation: Literal["cls", "mean", "max"]
    dropout: Share

    @model_validator(mode="after")
    def _heads_divide(self) -> Tern:
        for name in ("embed_dim", "visual_dim"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} {getattr(self, name)} is not a multiple of heads {self.heads}")
        return self


class Vsepp(Section):
    """Linear maps and pooling."""

    embed_dim: Count
    image_pool: Literal["mean", "max"]
    text_pool: Literal["mean", "max", "cls"]
    dropout: Share


class Evaluate(Section):
    """Search over the test embeddings."""

    index: str
    top_k: Count
    batch_size: Count


class Report(Section):
    """Metrics, plots and gallery."""

    gallery_queries: Count


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    model: Literal["tern", "vsepp"]
    dataset: Literal["scenes", "flickr8k"]
    scenes: Scenes
    flickr8k: Flickr8k
    download: Download
    regions: Regions
    detector: Detector
    grid: Grid
    bert: Bert
    captions: Captions
    bigru: Bigru
    bert_finetune: BertFinetune
    train: Train
    loss: Loss
    tern: Tern
    vsepp: Vsepp
    evaluate: Evaluate
    report: Report

    @property
    def region_backend(self) -> str:
        """The backend that ``regions.backend: auto`` stands for with this dataset."""
        if self.regions.backend != "auto":
            return self.regions.backend
        return "torchvision" if self.dataset == "scenes" else "grid"

    @property
    def bert_source(self) -> str:
        """The source that ``bert.source: auto`` stands for with this dataset."""
        if self.bert.source != "auto":
            return self.bert.source
        return "fit" if self.dataset == "scenes" else "bert-base-uncased"

    @property
    def model_settings(self) -> Section:
        """The section of the chosen model."""
        return getattr(self, self.model)

    def run_settings(self) -> dict[str, Any]:
        """What determines a trained model, nested: the sections in use, and what ``auto`` stands for.

        Logged with the run, and hashed together with the data into the key by which it is found again.
        """
        backend = "grid" if self.region_backend == "grid" else "detector"
        sections = ("regions", backend, "bert", "captions", "train", "loss", self.dataset, self.model)
        if self.captions.encoder != "bert":
            sections += (self.captions.encoder,)
        settings = {name: getattr(self, name).model_dump(mode="json") for name in sections}
        settings["regions"]["backend"] = self.region_backend
        settings["bert"]["source"] = self.bert_source
        return {"seed": self.seed, "model": self.model, "dataset": self.dataset} | settings

    @property
    def dataset_settings(self) -> Section:
        """The section of the chosen dataset."""
        return getattr(self, self.dataset)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: file missing or not YAML; unknown or missing key; wrong type; value out of range. The
            message names the file, the first offending key, what was found and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the root of the repository") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected sections of settings, found {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(path, error)) from None


def _explain(path: Path, error: ValidationError) -> str:
    """First problem in one line, the number of further ones behind it."""
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
    if first["type"] == "extra_forbidden":
        text = f"{key}: unknown key"
    elif first["type"] == "missing":
        text = f"{key}: missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
        text = f"{key}: {message}{found}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{path}: {text}{more}"
