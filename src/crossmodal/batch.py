"""Batches of images and captions: the language between data, text encoders and matchers.

Shapes: B images or captions, R regions, L tokens, D region feature size, H token feature size, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


class Batched:
    """Tensors with the same first dimension, moved and sliced together; None stays None."""

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batched:
        changed = {name: change(value) for name, value in vars(self).items() if value is not None}
        return replace(self, **changed)

    def __len__(self) -> int:
        return len(next(value for value in vars(self).values() if value is not None))

    def __getitem__(self, rows: slice | torch.Tensor) -> Batched:
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device) -> Batched:
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> Batched:
        return self._map(torch.Tensor.pin_memory)


@dataclass(frozen=True)
class Regions(Batched):
    """A padded batch of image regions.

    features: (B, R, D) float. boxes: (B, R, 4), x1 y1 x2 y2 as shares of the image's width and height; None of
    features that came without. mask: (B, R) bool, True where there is a region.
    """

    features: torch.Tensor
    boxes: torch.Tensor | None
    mask: torch.Tensor


@dataclass(frozen=True)
class Words(Batched):
    """A padded batch of caption tokens.

    features: (B, L, H) float, None until a text encoder has made them of the ids; the first token is [CLS] or
    <start>. mask: (B, L) bool, True where there is a token. ids: (B, L) int64, None where features are enough.
    """

    features: torch.Tensor | None
    mask: torch.Tensor
    ids: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoding(Batched):
    """Images or captions as a matcher compares them.

    vectors: (B, E), one a row, L2-normalised; or (B, N, E), a set a row, with mask (B, N) True where there is
    a member.
    """

    vectors: torch.Tensor
    mask: torch.Tensor | None = None

    def float(self) -> Encoding:
        return replace(self, vectors=self.vectors.float())
