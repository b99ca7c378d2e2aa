"""Encodings and similarity matrices of a trained matcher, whatever it compares, within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding, Regions, Words, sent
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.on_device import DeviceRegions
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Matcher
from crossmodal.models.blocks import masked_mean
from crossmodal.models.checkpoint import MatcherConfig
from crossmodal.runtime import progress

CAPTION_CHUNK = 512


@dataclass(frozen=True)
class SearchInputs:
    """A matcher, the stores that it reads, and the rows of a split that are searched.

    batch_size: images or captions encoded together. config: of a matcher that was loaded.
    """

    model: Matcher
    regions: FeatureStore | DeviceRegions
    words: FeatureStore
    split: Split
    batch_size: int
    config: MatcherConfig | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Images and captions of the split: the shape of its similarity matrix."""
        return len(self.split.images), len(self.split.captions)

    def encode_images(self, rows: np.ndarray | slice = slice(None)) -> Encoding:
        """Images of the split, in its order; ``rows``: which ones."""
        return encode_images(self.model, self.regions, self.split.images[rows], self.batch_size)

    def encode_captions(self, rows: np.ndarray | slice = slice(None)) -> Encoding:
        """Captions of the split, in its order; ``rows``: which ones."""
        return encode_captions(self.model, self.words, self.split.captions[rows], self.batch_size)

    def caption_chunks(self) -> Iterator[tuple[np.ndarray, Encoding]]:
        """Chunks of the split's captions, from short to long: their rows in the split, and their encodings."""
        by_length = np.argsort(self.words.lengths[self.split.captions], kind="stable")
        for rows in progress(list(_chunks(by_length, CAPTION_CHUNK)), desc="score", leave=False):
            yield rows, self.encode_captions(rows)

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """One vector an image (N, E) and a caption (C, E), float32, see ``pooled``; sets are held chunk by chunk.

        Raises:
            UserError: a value is NaN.
        """
        images = image_vectors(self.model, self.regions, self.split.images, self.batch_size)
        if self.model.pooled:
            return images, numbers(self.encode_captions().vectors)
        rows, vectors = zip(*((rows, numbers(pooled(chunk))) for rows, chunk in self.caption_chunks()), strict=True)
        return images, np.concatenate(vectors)[np.argsort(np.concatenate(rows))]


@contextmanager
def evaluating(model: Matcher) -> Iterator[None]:
    """A matcher that is being trained in evaluation mode for a while; one that was loaded is left alone.

    Several threads may share a loaded matcher.
    """
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


@torch.inference_mode()
def encode_images(model: Matcher, store: FeatureStore | DeviceRegions, rows: np.ndarray, batch_size: int) -> Encoding:
    """The images of ``rows``, in that order."""
    read = DeviceRegions.batch if isinstance(store, DeviceRegions) else read_regions
    return _encode(model, model.encode_regions, read, store, rows, batch_size)


@torch.inference_mode()
def encode_captions(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> Encoding:
    """The captions of ``rows``, in that order."""
    return _encode(model, model.encode_text, read_words, store, rows, batch_size)


@torch.inference_mode()
def similarity_matrix(inputs: SearchInputs, out: np.ndarray | None = None) -> np.ndarray:
    """Similarity of every image with every caption: (N, C) float32.

    Images are encoded once and kept, captions in chunks, from short to long, so that little padding is scored.

    Args:
        out: (N, C) float32 to write to, a memory map where the matrix is larger than memory may be.

    Raises:
        UserError: a score is NaN.
    """
    matrix = np.empty(inputs.shape, dtype=np.float32) if out is None else out
    with evaluating(inputs.model):
        images = inputs.encode_images()
        for rows, captions in inputs.caption_chunks():
            matrix[:, rows] = scored(inputs.model, images, captions)
    return matrix


def image_vectors(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """One vector an image: (N, E) float32, see ``pooled``.

    Raises:
        UserError: a value is NaN.
    """
    return numbers(pooled(encode_images(model, store, rows, batch_size)))


def pooled(encoding: Encoding) -> torch.Tensor:
    """A matcher's own vectors, or the mean of each set, L2-normalised: (B, E). Shortlists are found by them."""
    if encoding.mask is None:
        return encoding.vectors
    return F.normalize(masked_mean(encoding.vectors, encoding.mask), dim=-1)


@torch.inference_mode()
def probe_similarity(inputs: SearchInputs) -> np.ndarray:
    """Similarity image x caption within each pair of the probe split: (pairs, 2, 2) float32."""
    model, probe = inputs.model, inputs.split
    if not len(probe.images):
        return np.zeros((0, 2, 2), dtype=np.float32)
    with evaluating(model):
        images = inputs.encode_images()
        captions = inputs.encode_captions()
        pairs = [slice(start, start + 2) for start in range(0, len(probe.images), 2)]
        return np.stack([scored(model, images[pair], captions[pair]) for pair in pairs])


@torch.inference_mode()
def scored(model: Matcher, images: Encoding, captions: Encoding, *, exact: bool = False) -> np.ndarray:
    """Similarity of encoded images and captions: (N, C) float32.

    Args:
        model: in evaluation mode, see ``evaluating``.
        exact: as ``Matcher.similarity`` takes it.

    Raises:
        UserError: a score is NaN.
        ValueError: the matcher is in training mode.
    """
    if model.training:
        raise ValueError("the matcher is in training mode: score within evaluating(model)")
    return numbers(model.similarity(images, captions, exact=True) if exact else model.similarity(images, captions))


def numbers(values: torch.Tensor) -> np.ndarray:
    """As NumPy float32, refusing NaN, which comparisons would rank first."""
    found = values.float().cpu().numpy()
    if np.isnan(found).any():
        raise UserError(
            "the model produced NaN scores: training diverged (a lower train.lr, train.clip or train.precision fp32 "
            "may help), or region or token features are not finite"
        )
    return found


def _encode(
    model: Matcher,
    encode: Callable[[Regions | Words], Encoding],
    read: Callable[[FeatureStore | DeviceRegions, np.ndarray], Regions | Words],
    store: FeatureStore | DeviceRegions,
    rows: np.ndarray,
    batch_size: int,
) -> Encoding:
    """Rows of similar length are encoded together, the longest first: a set's size is known from the start.

    No batch waits for the device: it is copied from pinned memory, and masks stay known on the CPU.
    """
    device = next(model.parameters(), torch.empty(0)).device
    from_long = np.argsort(-store.lengths[rows], kind="stable")
    vectors, mask, host_mask = None, None, None
    for chunk in progress(list(_chunks(from_long, batch_size)), desc="encode", leave=False):
        with evaluating(model):
            part = encode(_moved(read(store, rows[chunk]), device))
        index = torch.from_numpy(chunk)
        on_device = sent(index, device)
        if vectors is None:
            vectors = part.vectors.new_zeros(len(rows), *part.vectors.shape[1:], dtype=torch.float32)
            mask = None if part.mask is None else part.mask.new_zeros(len(rows), part.mask.shape[1])
            host_mask = None if part.host_mask is None else torch.zeros(mask.shape, dtype=torch.bool)
        if mask is None:
            vectors[on_device] = part.vectors.float()
        else:
            vectors[on_device, : part.mask.shape[1]] = part.vectors.float()
            mask[on_device, : part.mask.shape[1]] = part.mask
        if host_mask is not None:
            host_mask[index, : part.mask.shape[1]] = part.host_mask
    return Encoding(vectors, mask, host_mask)


def _moved(batch: Regions | Words, device: torch.device) -> Regions | Words:
    """A batch on a device, unless it was made there."""
    return batch if batch.mask.device.type == device.type else batch.pin_memory().move(device)


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
