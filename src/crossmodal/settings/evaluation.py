"""Sections of params.yaml: how the test split is searched, and what is reported of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crossmodal.files.checked_yaml import Section
from crossmodal.settings.values import Count, CountOrZero, NotNegative, Seed


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
