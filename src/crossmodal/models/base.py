"""What a matcher takes and gives.

A model is one file: a subclass of Matcher with ``encode_images``, ``encode_captions`` and, where the
similarity is more than an inner product, ``similarity``.

Shapes: B images or captions, R regions, L tokens, D region feature size, H token feature size, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Regions:
    """A padded batch of image regions.

    features: (B, R, D) float. boxes: (B, R, 4), x1 y1 x2 y2 as shares of the image's width and height.
    mask: (B, R) bool, True where there is a region.
    """

    features: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Regions:
        return Regions(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


@dataclass(frozen=True)
class Words:
    """A padded batch of caption tokens.

    features: (B, L, H) float, the first token is [CLS]. mask: (B, L) bool, True where there is a token.
    """

    features: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Words:
        return Words(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


@dataclass(frozen=True)
class InputSizes:
    """Sizes a model takes from the data: of region features and of token features."""

    regions: int
    words: int


class Matcher(nn.Module):
    """Scores images against captions."""

    def encode_images(self, regions: Regions) -> torch.Tensor:
        """Images to L2-normalised embeddings: (B, E)."""
        raise NotImplementedError

    def encode_captions(self, words: Words) -> torch.Tensor:
        """Captions to L2-normalised embeddings: (B, E)."""
        raise NotImplementedError

    def similarity(self, images: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        """Similarity of every image with every caption: (N, C); the cosine unless a model overrides it."""
        return images @ captions.T
