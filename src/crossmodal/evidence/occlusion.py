"""Occlusion: how much a score falls without a region or without a word.

For every model that encodes images and captions and compares them, whatever it compares; models that compare regions
with words have an alignment too (Matcher.alignment). The score of a word with an image is that of the caption's first
token, the word's tokens and the caption's last token, as in evidence.pointing, which measures how often the region
without which it falls most lies on what the words name. Token features that another network made of the whole sentence
stay as they are: they know of the words that are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.inference.scoring import scored

VARIANTS = 256  # images, each without one of its regions, that are encoded together


class Scorer(Protocol):
    """What occlusion needs of a model, in evaluation mode; every Matcher has it."""

    training: bool
    approximate: bool

    def encode_regions(self, regions: Regions) -> Encoding: ...

    def encode_text(self, words: Words) -> Encoding: ...

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor: ...


@dataclass(frozen=True)
class Falls:
    """By how much scores of one image fall; below 0: they rise.

    regions (W, R): the score of each word with the image, without each region. words (W,): the score of the sentence
    with the image, without each word.
    """

    regions: np.ndarray
    words: np.ndarray


@torch.inference_mode()
def falls(
    model: Scorer, regions: Regions, words: Words, groups: Sequence[np.ndarray], variants: int = VARIANTS
) -> list[Falls]:
    """How much the scores of a sentence with images fall without each of their regions and each of its words.

    Args:
        regions: (B, R, D). words: (1, L, H), on the same device. groups: tokens of each of W words, W > 0.
        variants: images that are encoded together, at most, or the variants of one image.

    Returns:
        Of each image the falls of its own regions. An image of one region, a sentence of one word: 0.
    """
    tokens = words.mask.sum(dim=1)
    alone = model.encode_text(kept_alone(words, [[0, *group, int(tokens[0]) - 1] for group in groups]))
    rest = [np.setdiff1d(np.arange(int(tokens[0])), group) for group in groups]
    without = kept_alone(words, [np.arange(int(tokens[0])), *(kept if len(kept) else [0] for kept in rest)])
    whole = scored(model, model.encode_regions(regions), model.encode_text(without), exact=model.approximate)
    of_words = whole[:, :1] - whole[:, 1:]
    of_words[:, [not len(kept) for kept in rest]] = 0
    of_regions: list[np.ndarray] = []
    counts = regions.mask.sum(dim=1).cpu().numpy()
    for chunk in chunks_of_images(counts, variants):
        some = regions[chunk.start : chunk.stop]
        of_regions += region_falls(model, some, alone, [slice(None)] * len(some))
    return [Falls(part.T, row) for part, row in zip(of_regions, of_words, strict=True)]


@torch.inference_mode()
def region_falls(
    model: Scorer, regions: Regions, captions: Encoding, of_image: Sequence[slice | np.ndarray]
) -> list[np.ndarray]:
    """How much the scores of captions with images fall without each region: (R, C) of each image.

    Args:
        regions: (B, R, D). captions: encoded, on the model's device. of_image: those of each image.

    Returns:
        For each image, of its own regions and captions; 0 for an image of one region.
    """
    variants, starts = without_each(regions)
    images = model.encode_regions(variants.to(captions.vectors.device))
    parts = []
    for number, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
        chosen = of_image[number]
        own = captions[chosen if isinstance(chosen, slice) else torch.from_numpy(chosen).to(captions.vectors.device)]
        scores = scored(model, images[start:end], own, exact=model.approximate)
        count = int(regions.mask[number].sum())
        alone = np.zeros((count, scores.shape[1]), dtype=np.float32)
        parts.append(scores[:1] - scores[1:] if len(scores) > 1 else alone)
    return parts


def without_each(regions: Regions) -> tuple[Regions, np.ndarray]:
    """Each image as it is, then without its first region, without its second, and so on.

    An image of one region is there as it is alone.

    Returns:
        The batch (V, R, D), and where each image starts in it, with V at the end.
    """
    counts = regions.mask.sum(dim=1).cpu().numpy()
    sizes = np.where(counts > 1, 1 + counts, 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    image = np.repeat(np.arange(len(counts)), sizes)
    dropped = np.arange(len(image)) - starts[image] - 1  # -1: none
    device = regions.mask.device
    repeated = regions[torch.from_numpy(image).to(device)]
    less = np.flatnonzero(dropped >= 0)
    repeated.mask[torch.from_numpy(less).to(device), torch.from_numpy(dropped[less]).to(device)] = False
    return repeated, starts


def kept_alone(words: Words, kept: Sequence[Sequence[int] | np.ndarray]) -> Words:
    """Captions with the tokens ``kept`` of each alone, those that follow a gap moved up.

    Args:
        words: (C, L, H); or (1, L, H), of which every row of the result is made.
    """
    rows = len(kept)
    mask = torch.zeros(rows, words.mask.shape[1], dtype=torch.bool)
    for row, tokens in enumerate(kept):
        mask[row, torch.as_tensor(np.asarray(tokens, dtype=np.int64))] = True
    order = (~mask).int().argsort(dim=1, stable=True)[:, : int(mask.sum(dim=1).max())].to(words.mask.device)
    index = (torch.arange(rows) if len(words) == rows else torch.zeros(rows, dtype=torch.int64))[:, None]
    index = index.to(words.mask.device)
    values = {name: None if tokens is None else tokens[index, order] for name, tokens in vars(words).items()}
    moved = mask.to(words.mask.device)[torch.arange(rows, device=words.mask.device)[:, None], order]
    return Words(**{**values, "mask": moved})


def chunks_of_images(counts: Sequence[int] | np.ndarray, size: int) -> Iterator[slice]:
    """Slices of images with at most ``size`` variants, the whole image among them, but one image at least.

    Args:
        counts: regions of each image.
    """
    start, variants = 0, 0
    for number, count in enumerate(counts):
        if number > start and variants + 1 + int(count) > size:
            yield slice(start, number)
            start, variants = number, 0
        variants += 1 + int(count)
    if start < len(counts):
        yield slice(start, len(counts))
