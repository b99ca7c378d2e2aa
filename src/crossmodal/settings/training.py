"""Sections of params.yaml: the training loop and its loss."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.values import Count, CountOrZero, NotNegative, Positive, Seed, Share


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
        # crcl: no float32 holds what comes of less. infonce: learned within CLIP's bound.
        if self.name in ("infonce", "crcl") and self.temperature < 0.01:
            raise ValueError(f"temperature {self.temperature}: name {self.name} takes 0.01 or more")
        return self


def check_candidates(candidates: int, train: Train) -> None:
    """See that ``loss.candidates`` leaves some to be drawn beside a group of ``train.neighbours``; 0 scores all.

    Raises:
        ValueError: the group takes them all.
    """
    if 0 < candidates <= train.neighbours and candidates < train.batch_size:
        raise ValueError(
            f"loss.candidates {candidates}: train.neighbours {train.neighbours} leaves none to be drawn from the "
            "rest of the batch; use more candidates or fewer neighbours"
        )
