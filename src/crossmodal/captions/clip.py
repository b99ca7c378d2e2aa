"""One token per caption: its embedding by the text half of a dual encoder (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from crossmodal.captions.base import FEATURES, CaptionEncoder, Row
from crossmodal.published.dual_encoder import embedding, embedding_size, load_half
from crossmodal.runtime import pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ClipText(CaptionEncoder):
    """``captions.encoder`` clip: embeddings as the model gives them, not normalised.

    Texts are cut at the model's own length; SigLIP was trained on texts padded to that length and is given them so.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(model.config.max_position_embeddings)
        self.device = pick_device()
        self.model, self.tokenizer = model.to(self.device), tokenizer
        self.size = embedding_size(model)
        self.arrays = {FEATURES: ("float16", (self.size,))}

    @classmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        return cls(*load_half(bert, "text", "bert"))

    @classmethod
    def reading(cls, max_tokens: int) -> dict[str, Any]:
        """None: the model's own length depends on the bert stage."""
        return {}

    @property
    def metadata(self) -> dict[str, Any]:
        return {}

    def rows(self, texts: Sequence[str], batch_size: int = 1) -> list[Row]:
        starts = range(0, len(texts), batch_size)
        embeddings = [row for first in starts for row in self._embed(list(texts[first : first + batch_size]))]
        return [{FEATURES: values[None]} for values in embeddings]

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> np.ndarray:
        """(B, E) float16."""
        tokens = self.tokenizer(
            texts,
            padding="max_length" if self.model.config.model_type.startswith("siglip") else "longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return embedding(self.model(**tokens.to(self.device))).float().cpu().numpy().astype(np.float16)
