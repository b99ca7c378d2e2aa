"""The interface of a matcher.

A model is one file: a subclass of Matcher with ``encode_images``, ``encode_captions`` and, where the
similarity is more than an inner product, ``similarity``.

Shapes: B images or captions, R regions, L tokens, D region feature size, H token feature size, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.blocks import SetDropout


@dataclass(frozen=True)
class InputSizes:
    """Sizes a model takes from the data: of region features and of token features."""

    regions: int
    words: int


class Stored(nn.Module):
    """Regions or token features as their stage stored them: nothing to do."""

    boxes = None

    def forward(self, values: Regions | Words) -> Regions | Words:
        return values


class Matcher(nn.Module):
    """Scores images against captions.

    ``image`` gives the regions that ``encode_images`` takes, ``text`` the token features of ``encode_captions``: stored
    ones, or those of a network that is trained with the model (models/grid_backbone.py, whose boxes (R, 4) are the same
    for every image; models/text.py). ``input_dropout``: of both, in training (train.input_dropout). ``pooled``: an
    item is one vector, which FAISS can search; otherwise a set, and images and captions are scored pair by pair.
    ``approximate``: ``similarity`` rounds unless ``exact`` is asked for. ``scores_candidates``: there is a
    ``candidate_similarity``.
    """

    pooled = True
    approximate = False
    scores_candidates = False

    def __init__(self) -> None:
        super().__init__()
        self.image: nn.Module = Stored()
        self.text: nn.Module = Stored()
        self.input_dropout = SetDropout(0.0)

    def encode_images(self, regions: Regions) -> Encoding:
        """Images as they are compared; a row may depend on nothing but its own regions."""
        raise NotImplementedError

    def encode_captions(self, words: Words) -> Encoding:
        """Captions as they are compared, from token features; a row may depend on nothing but its own tokens."""
        raise NotImplementedError

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor:
        """Similarity of every image with every caption: (N, C); the cosine unless a model overrides it.

        Args:
            exact: in fp32, whatever a setting says; only for models that are ``approximate``.
        """
        return images.vectors @ captions.vectors.T

    def batch_similarity(self, images: Encoding, captions: Sequence[Encoding], *, sparse: int) -> torch.Tensor:
        """``similarity`` of a training batch, whose captions come in several paddings: (N, C), C captions in all.

        Args:
            sparse: hint: the loss has a gradient for at most so many of these pairs, which are few; 0: for many.
        """
        return torch.cat([self.similarity(images, part) for part in captions], dim=1)

    def candidate_similarity(
        self, images: Encoding, captions: Sequence[Encoding], candidates: torch.Tensor
    ) -> torch.Tensor:
        """``batch_similarity`` of some pairs alone, for models in which a pair costs much: (N, C), 0 elsewhere.

        Args:
            candidates: (N, C) bool, the pairs.
        """
        raise NotImplementedError

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor | None:
        """How much each region answers each word, of an image and a caption a row: (B, R, L), for the report.

        0 at padding and where a token takes no part, else positive; comparable within a pair. None where a model does
        not compare regions with words.
        """
        return None

    def region_features(self, regions: Regions) -> Regions:
        """The regions that ``encode_images`` takes, from the content of the region store."""
        given = self.image(regions)
        return replace(given, features=self.input_dropout(given.features))

    def word_features(self, words: Words) -> Words:
        """The token features that ``encode_captions`` takes, from the content of the caption store."""
        given = self.text(words)
        return replace(given, features=self.input_dropout(given.features))

    def encode_regions(self, regions: Regions) -> Encoding:
        """Images as they are compared, from the content of the region store."""
        return self.encode_images(self.region_features(regions))

    def encode_text(self, words: Words) -> Encoding:
        """Captions as they are compared, from the content of the caption store."""
        return self.encode_captions(self.word_features(words))

    def members(self) -> list[Matcher]:
        """The matchers that are trained, each with a loss of its own: this one, those of an ensemble, or none."""
        return [self]

    def forward(self, regions: Regions, words: Sequence[Words]) -> tuple[Encoding, list[Encoding]]:
        """Encode images, and captions in several paddings."""
        return self.encode_regions(regions), [self.encode_text(part) for part in words]
