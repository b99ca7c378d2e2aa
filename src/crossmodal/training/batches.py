"""The batches of image-caption pairs of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Regions, Words


@dataclass(frozen=True)
class PairBatch:
    """B images, each with one of its captions. ``images``: (B,) int64, the image's row, to find pairs of one image."""

    regions: Regions
    words: Words
    images: torch.Tensor


class EpochBatches(Dataset):
    """The batches of one epoch; batch i is the same whoever reads it, in whatever process or order.

    Args:
        captions: (C,) rows of the caption store to train on; caption_image: image row of every caption.
        seed, epoch: with the batch's number, determine the order and what is dropped.
    """

    def __init__(
        self,
        region_store: FeatureStore,
        word_store: FeatureStore,
        captions: np.ndarray,
        caption_image: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        region_dropout: float,
        word_dropout: float,
    ) -> None:
        self.region_store, self.word_store = region_store, word_store
        self.caption_image = caption_image
        self.seed, self.epoch = seed, epoch
        self.region_dropout, self.word_dropout = region_dropout, word_dropout
        order = np.random.default_rng([seed, epoch]).permutation(captions)
        count = max(1, len(order) // batch_size)  # a smaller last batch has easier negatives: left out
        self.batches = [order[number * batch_size : (number + 1) * batch_size] for number in range(count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> PairBatch:
        captions = self.batches[number]
        images = self.caption_image[captions]
        rng = np.random.default_rng([self.seed, self.epoch, number])
        return PairBatch(
            regions=read_regions(self.region_store, images, rng, self.region_dropout),
            words=read_words(self.word_store, captions, rng, self.word_dropout),
            images=torch.from_numpy(images),
        )


def load_batches(epoch: EpochBatches, *, first: int, workers: int, pinned: bool) -> DataLoader:
    """The epoch's batches from number ``first`` on, in order."""
    return DataLoader(
        epoch,
        batch_size=None,
        sampler=range(first, len(epoch)),
        num_workers=workers,
        pin_memory=pinned,
        generator=torch.Generator(),  # else each iterator draws from the global one, and a resumed run differs
    )
