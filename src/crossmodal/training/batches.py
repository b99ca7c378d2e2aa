"""Training data, and the batches of image-caption pairs of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from crossmodal.batch import RegionIndex, Regions, Words
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import TokenTable, read_regions, read_words
from crossmodal.features.on_device import DeviceRegions
from crossmodal.features.store import FeatureStore
from crossmodal.settings.training import Train

LENGTH_BUCKETS = 4


@dataclass(frozen=True)
class TrainingData:
    """Stores and splits.

    caption_image: image row of every caption of the caption store. token_table: of its token ids, for
    ``train.word_dropout_kind`` words. relevance: (captions, images) of ``val``, for ``train.best`` ndcg. on_device: the
    regions of ``train`` and ``val``, where they are kept on the device.
    """

    regions: FeatureStore
    words: FeatureStore
    caption_image: np.ndarray
    train: Split
    val: Split
    token_table: TokenTable | None = None
    relevance: np.ndarray | None = None
    on_device: DeviceRegions | None = None


@dataclass(frozen=True)
class PairBatch:
    """B captions and the N distinct images they belong to, each image read and encoded once; or a process's share.

    With V views of each pair there are V B captions and V N images, views one after the other; view v of a caption
    belongs to view v of its image.

    ``words``: the captions from short to long in LENGTH_BUCKETS parts, so that little padding is computed.
    ``image_index``: (B,) int64, index among the N of each caption's image, of the whole batch; the captions in the
    order of the processes that have them. ``captions``: (B,) int64, their rows of the caption store. ``group``: (N,)
    int64 on the CPU, of all images of the batch, the same for those that ``train.neighbours`` takes together.
    ``host_index``: ``image_index`` on the CPU, of a batch that was moved from there.
    """

    regions: Regions | RegionIndex
    words: tuple[Words, ...]
    image_index: torch.Tensor
    captions: torch.Tensor
    group: torch.Tensor
    host_index: torch.Tensor | None = None

    def index_on_host(self) -> torch.Tensor:
        """``image_index`` on the CPU, of a batch that was made there."""
        return self.image_index if self.host_index is None else self.host_index

    def to(self, device: torch.device, kept: DeviceRegions | None = None) -> PairBatch:
        """The batch on a device; ``kept``: what a RegionIndex refers to."""
        words = tuple(part.move(device) for part in self.words)
        pairs = (values.to(device, non_blocking=True) for values in (self.image_index, self.captions))
        regions = self.regions.move(device)
        regions = kept.gather(regions) if isinstance(regions, RegionIndex) else regions
        return PairBatch(regions, words, *pairs, self.group, host_index=self.index_on_host())

    def pin_memory(self) -> PairBatch:
        """Called by a DataLoader, so that ``to`` copies while the device computes."""
        words = tuple(part.pin_memory() for part in self.words)
        pairs = (values.pin_memory() for values in (self.image_index, self.captions))
        return PairBatch(self.regions.pin_memory(), words, *pairs, self.group)


class EpochBatches(Dataset):
    """The batches of one epoch; batch i is the same in any process or order of reading.

    Args:
        settings: captions_per_image and neighbours of 1 draw pairs independently, as published.
        views: how often each image and caption is read for a batch, each time with others dropped (``loss.views``).
        seed, epoch: with the batch's number, determine the order and what is dropped.
        share: (rank, count), which of how many processes' share of every batch is read: one part of the images,
            and of the captions every count-th from short to long.
        stored: features as they are stored, which are float32 after ``PairBatch.to`` a GPU: half the bytes to copy.

    Raises:
        UserError: a batch has fewer images than there are processes.
    """

    def __init__(
        self,
        data: TrainingData,
        settings: Train,
        *,
        seed: int,
        epoch: int,
        views: int = 1,
        share: tuple[int, int] = (0, 1),
        stored: bool = False,
    ) -> None:
        self.data, self.settings, self.views, self.share, self.stored = data, settings, views, share, stored
        self.seed, self.epoch = seed, epoch
        captions, caption_image, batch_size = data.train.captions, data.caption_image, settings.batch_size
        self.images = np.unique(caption_image[captions])
        rng = np.random.default_rng([seed, epoch])
        order = _pair_order(captions, caption_image, settings.captions_per_image, settings.neighbours, rng)
        count = max(1, len(order) // batch_size)  # a smaller last batch has easier negatives: left out
        self.batches = [order[number * batch_size : (number + 1) * batch_size] for number in range(count)]
        if share[1] > 1:
            fewest = min(len(np.unique(caption_image[batch])) for batch in self.batches)
            if fewest < share[1]:
                raise UserError(
                    f"params.yaml: train.batch_size {batch_size}: a batch has {fewest} images, "
                    f"too few for {share[1]} processes; use a larger batch or fewer train.devices"
                )

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> PairBatch:
        data, settings = self.data, self.settings
        captions = self.batches[number]
        captions = captions[np.argsort(data.words.lengths[captions], kind="stable")]
        images, image_index = np.unique(data.caption_image[captions], return_inverse=True)
        rank, count = self.share
        order = np.concatenate([np.arange(first, len(captions), count) for first in range(count)])
        views = np.arange(self.views)
        own_images = np.repeat(np.array_split(images, count)[rank], self.views)
        own_captions = np.repeat(captions[rank::count], self.views)
        rng = np.random.default_rng([self.seed, self.epoch, number, rank])
        return PairBatch(
            regions=self._regions(own_images, rng),
            words=tuple(
                read_words(data.words, part, rng, settings.word_dropout, data.token_table, stored=self.stored)
                for part in np.array_split(own_captions, min(LENGTH_BUCKETS, len(own_captions)))
            ),
            image_index=torch.from_numpy((image_index[order, None] * self.views + views).ravel()),
            captions=torch.from_numpy(captions[order]),
            group=torch.from_numpy(np.repeat(np.searchsorted(self.images, images) // settings.neighbours, self.views)),
        )

    def _regions(self, images: np.ndarray, rng: np.random.Generator) -> Regions | RegionIndex:
        data, drop = self.data, self.settings.region_dropout
        if data.on_device is not None:
            return data.on_device.index(images, rng, drop)
        return read_regions(data.regions, images, rng, drop, stored=self.stored)


def _pair_order(
    captions: np.ndarray, caption_image: np.ndarray, together: int, neighbours: int, rng: np.random.Generator
) -> np.ndarray:
    """Captions in random order, but with ``together`` of an image side by side, and ``neighbours`` images."""
    shuffled = rng.permutation(captions)
    by_image = shuffled[np.argsort(caption_image[shuffled], kind="stable")]
    _, first, image = np.unique(caption_image[by_image], return_index=True, return_inverse=True)
    part = (np.arange(len(by_image)) - first[image]) // together  # which share of its image's captions
    block = image // neighbours
    _, group = np.unique(np.stack([block, part]), axis=1, return_inverse=True)
    turn = rng.permutation(group.max() + 1)
    return by_image[np.argsort(turn[group], kind="stable")]


@contextmanager
def batch_norms_explained(batch: PairBatch) -> Iterator[None]:
    """A training step in which a batch norm may get a single value, which has no variance.

    Raises:
        UserError: torch refuses that.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        images, regions = batch.regions.mask.shape
        raise UserError(
            f"params.yaml: train.batch_size: a batch has {images} image{'s' * (images > 1)} of {regions} regions at "
            "most, too few for the model's batch norms; use a larger batch or more training images"
        ) from None


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
