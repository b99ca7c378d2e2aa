"""params.yaml as typed settings, checked as a whole.

The sections are in the order of params.yaml, whose comments say what a setting means. No field has a default:
params.yaml is the only place where a value is set. What a stage reads is declared in dvc.yaml, so this file is not a
dependency of the stages; changing a check here cannot change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import Section, first_problem, read_yaml

_MOST = 2**31 - 1  # what NumPy, torch and FAISS take for a number of things everywhere
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


# ------------------------------------------------------------------------------------------------------------- datasets


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


# ------------------------------------------------------------------------------------------------------------- features


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


# ------------------------------------------------------------------------------------------------------------- training


class Train(Section):
    """The training loop."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    captions_per_image: Count
    neighbours: Count
    accumulate: Count
    chunk: CountOrZero
    mismatched: Annotated[Share | Annotated[str, Field(min_length=1)], Field(union_mode="left_to_right")]
    mismatched_seed: Seed
    precision: Literal["fp32", "tf32", "bf16"]
    optimizer: Literal["adam", "adamw"]
    lr: Positive
    weight_decay: NotNegative
    decay_biases: bool
    clip: NotNegative
    ema: Share
    schedule: Literal["constant", "step", "cosine", "plateau", "onecycle"]
    warmup_steps: CountOrZero
    warmup_offset: CountOrZero
    step_epochs: Count | Annotated[list[Count], Field(min_length=1)]
    gamma: Annotated[float, Field(gt=0, le=1)]
    plateau_patience: CountOrZero
    region_dropout: Share
    word_dropout: Share
    word_dropout_kind: Literal["tokens", "words"]
    input_dropout: Share
    best: Literal["rsum", "t2i", "ndcg"]
    training_images: CountOrZero
    validation_images: CountOrZero
    patience: CountOrZero
    features: Literal["host", "device", "auto"]
    workers: Literal["auto"] | CountOrZero
    devices: Count
    compile: bool


LossPart = Literal["distance", "reducer", "regularizer", "miner"]
MATRIX_LOSSES = ("hinge", "infonce", "crcl")  # of similarities, where the others are of vectors


class Loss(Section):
    """The training objective."""

    name: Literal["hinge", "infonce", "crcl", "contrastive", "triplet", "ntxent", "multisimilarity"]
    margin: Positive
    negatives: Literal["hard", "all"]
    all_negatives_epochs: CountOrZero
    views: Count
    temperature: Positive
    candidates: Literal["auto"] | CountOrZero
    mask_same_image: bool
    label_epochs: CountOrZero
    label_momentum: Share
    positive_margin: float | None
    negative_margin: float | None
    alpha: Positive
    beta: Positive
    base: float
    distance: Literal["cosine", "dot", "euclidean", "snr"] | None
    reducer: Literal["mean", "sum", "nonzero", "threshold", "per_anchor"] | None
    regularizer: Literal["l1", "zero_mean"] | None
    regularizer_weight: Positive
    miner: (
        Literal[
            "angular",
            "batch_easy_hard",
            "batch_hard",
            "distance_weighted",
            "hdc",
            "multisimilarity",
            "pair_margin",
            "triplet_margin",
            "uniform_histogram",
        ]
        | None
    )
    kwargs: dict[LossPart, dict[str, bool | int | float | str | list[float]]]

    @model_validator(mode="after")
    def _parts_are_used(self) -> Loss:
        if self.views > 1 and self.name != "hinge":
            raise ValueError(
                f"views {self.views}: name {self.name} compares one view of each pair; use 1, or name hinge"
            )
        chosen = [part for part in get_args(LossPart) if getattr(self, part) is not None]
        if self.name in MATRIX_LOSSES and chosen:
            raise ValueError(f"{chosen[0]} {getattr(self, chosen[0])}: name {self.name} takes none; set it to null")
        idle = sorted(set(self.kwargs) - set(chosen))
        if idle:
            raise ValueError(f"kwargs.{idle[0]}: {idle[0]} is null, so that they would not count")
        if self.name == "triplet" and self.reducer == "per_anchor":
            raise ValueError("reducer per_anchor: not with name triplet")
        if self.name == "crcl" and self.temperature < 0.01:  # no float32 holds what comes of less
            raise ValueError(f"temperature {self.temperature}: name crcl takes 0.01 or more")
        return self


# --------------------------------------------------------------------------------------------------------------- models


class ModelSection(Section):
    """The settings of a model: what ``model`` on top of params.yaml may name."""


class TernEncoders(ModelSection):
    """The encoders of TERN and TERAN."""

    embed_dim: Count
    visual_dim: Count
    visual_layers: CountOrZero
    text_layers: CountOrZero
    layers: CountOrZero
    heads: Count
    feed_forward: Count
    shared: bool
    layers_start: Literal["drawn", "copies"]
    positions: Literal["concat", "sum", "none"]
    location_scale: Positive
    dropout: Share

    @model_validator(mode="after")
    def _heads_divide(self) -> TernEncoders:
        for name in ("embed_dim", "visual_dim"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} {getattr(self, name)} is not a multiple of heads {self.heads}")
        return self


class Tern(TernEncoders):
    """Transformer Encoder Reasoning Network."""

    image_aggregation: Literal["cls", "mean", "max"]
    text_aggregation: Literal["cls", "mean", "max"]


class Teran(TernEncoders):
    """Transformer Encoder Reasoning and Alignment Network."""

    alignment: Literal["MrSw", "MwSr", "symm", "MrAVGw", "sum", "mean", "scan_sentences"]
    last_tokens: Literal[1, 2]


class Vsepp(ModelSection):
    """Linear maps and pooling."""

    embed_dim: Count
    image_pool: Literal["mean", "max"]
    text_pool: Literal["mean", "max", "cls"]


class MappedRegions(ModelSection):
    """Maps of regions and words that VSE-infinity, ESA and X-Dim share."""

    embed_dim: Count
    word_map: Literal["linear", "none"]
    mlp_hidden: CountOrZero
    norm_padding: bool


class VseInfty(MappedRegions):
    """VSE-infinity, the generalised pooling operator."""

    pe_dim: Annotated[int, Field(ge=2, multiple_of=2)]
    pool_hidden: Count
    temperature: Positive


class Esa(MappedRegions):
    """ESA, a pooling by softmax in every dimension."""

    dropout: Share


class Xdim(MappedRegions):
    """X-Dim, learned cross-dimensional similarity."""

    embed_dim: Annotated[int, Field(ge=2)]  # the threshold needs a standard deviation


class Chan(ModelSection):
    """CHAN, hard assignment of regions and words."""

    embed_dim: Count
    attention_heads: CountOrZero
    word_map: Literal["linear", "none"]
    coding: Literal["visual", "textual", "both"]
    pool: Literal["max", "mean", "sum", "lse"]
    temperature: Positive


class Scan(ModelSection):
    """Stacked cross attention."""

    embed_dim: Count
    direction: Literal["t2i", "i2t"]
    pool: Literal["lse", "avg"]
    lambda_softmax: Positive
    lambda_lse: Positive
    word_map: Literal["linear", "none"]


class Imram(ModelSection):
    """Iterative matching with recurrent attention memory."""

    embed_dim: Count
    direction: Literal["t2i", "i2t", "both"]
    steps: Annotated[int, Field(ge=1, le=16)]
    lambda_softmax: Positive
    word_map: Literal["linear", "none"]


class Sgraf(ModelSection):
    """Similarity reasoning and filtration."""

    module: Literal["sgr", "saf", "sgraf"]
    embed_dim: Count
    sim_dim: Count
    sgr_steps: Count
    lambda_softmax: Positive
    word_map: Literal["linear", "none"]
    region_norms: Count
    dropout: Share
    similarity_dropout: Share
    precision: Literal["fp32", "bf16"]


class Vsrn(ModelSection):
    """Visual semantic reasoning."""

    embed_dim: Count
    layers: CountOrZero
    word_dim: Count


class Clip(ModelSection):
    """A frozen dual encoder: the source of its regions and captions, and a model without settings."""

    source: str


# ----------------------------------------------------------------------------------------------------------- evaluation


class Relevance(Section):
    """Graded relevance of test images to test captions."""

    measure: Literal["rouge_l", "spice", "none"]


class Muvera(Section):
    """Fixed dimensional encodings of sets."""

    repetitions: Count
    planes: Annotated[int, Field(ge=0, le=8)]
    dim: Count
    seed: Seed


class Evaluate(Section):
    """How the test split is searched."""

    mode: Literal["auto", "embeddings", "exact_pairwise", "shortlist_rerank"]
    index: Annotated[str, Field(min_length=1)]
    metric: Literal["inner_product", "l2"]
    search: str
    shortlist: Count
    shortlist_by: Annotated[str, Field(min_length=1)]
    muvera: Muvera
    exact_queries: Count
    top_k: Count
    explained: CountOrZero
    pointing: CountOrZero
    threshold: CountOrZero
    batch_size: Count
    folds: Count | None

    @model_validator(mode="after")
    def _shortlist_is_enough(self) -> Evaluate:
        if self.mode == "shortlist_rerank" and self.shortlist < self.top_k:
            raise ValueError(f"shortlist {self.shortlist} is below top_k {self.top_k}")
        return self

    @model_validator(mode="after")
    def _encodings_have_lengths(self) -> Evaluate:
        if self.mode == "shortlist_rerank" and self.shortlist_by == "muvera" and self.metric == "l2":
            raise ValueError("metric l2: shortlist_by muvera takes inner_product, its encodings differ in length")
        return self


class Report(Section):
    """Metrics, plots and gallery."""

    gallery_queries: Count


Gate = dict[
    Literal["test", "validation", "detector", "search"], dict[str, NotNegative]
]  # by file of metrics/ and figure


# ------------------------------------------------------------------------------------------------------------ all of it


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    model: str
    dataset: Literal["scenes", "flickr8k", "flickr30k", "coco", "folder"]
    scenes: Scenes
    flickr8k: Flickr8k
    flickr30k: Flickr30k
    coco: Coco
    folder: Folder
    download: Download
    regions: Regions
    ray: RayCluster
    precomputed: Precomputed
    detector: Detector
    grid: Grid
    grid_finetune: GridFinetune
    bottomup: Bottomup
    bert: Bert
    captions: Captions
    bigru: Bigru
    bert_finetune: BertFinetune
    train: Train
    loss: Loss
    tern: Tern
    teran: Teran
    vsepp: Vsepp
    vse_infty: VseInfty
    scan: Scan
    imram: Imram
    sgraf: Sgraf
    vsrn: Vsrn
    esa: Esa
    xdim: Xdim
    chan: Chan
    clip: Clip
    relevance: Relevance
    evaluate: Evaluate
    report: Report
    gate: Gate

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, name: str) -> str:
        kinds = {key: field.annotation for key, field in cls.model_fields.items()}
        models = [key for key, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, ModelSection)]
        if name not in models:
            raise ValueError(f"input should be {', '.join(map(repr, models[:-1]))} or {models[-1]!r}")
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
        same_image_counts = loss.name in MATRIX_LOSSES and not loss.mask_same_image
        if train.captions_per_image >= train.batch_size and not same_image_counts:
            raise ValueError(
                f"train.batch_size {train.batch_size}: a batch may be of one image, "
                f"train.captions_per_image {train.captions_per_image}, and leave loss.name {loss.name} no negatives; "
                "use a larger batch"
            )
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
