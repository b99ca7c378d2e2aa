"""Sections of params.yaml: a model each, those that ``model`` may name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.values import Count, CountOrZero, Positive, Share


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
