"""Encodings and similarity matrices of a trained matcher, whatever it compares, within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Encoding, Matcher, Regions, Words
from crossmodal.models.blocks import masked_mean
from crossmodal.runtime import progress

CAPTIONS_AT_ONCE = 512


@torch.inference_mode()
def encode_images(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> Encoding:
    """The images of ``rows``, in that order."""
    return _encode(model, model.encode_images, read_regions, store, rows, batch_size)


@torch.inference_mode()
def encode_captions(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> Encoding:
    """The captions of ``rows``, in that order."""
    return _encode(model, model.encode_text, read_words, store, rows, batch_size)


@torch.inference_mode()
def similarity_matrix(
    model: Matcher,
    regions: FeatureStore,
    images: np.ndarray,
    words: FeatureStore,
    captions: np.ndarray,
    batch_size: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Similarity of every image with every caption: (N, C) float32.

    Images are encoded once and kept, captions by and by, from short to long, so that little padding is scored.

    Args:
        images: (N,) rows of the region store, captions: (C,) rows of the caption store.
        batch_size: images or captions that are encoded at once.
        out: (N, C) float32 to write to, a memory map where the matrix is larger than memory may be.

    Raises:
        UserError: a score is NaN.
    """
    encoded = encode_images(model, regions, images, batch_size)
    matrix = np.empty((len(images), len(captions)), dtype=np.float32) if out is None else out
    for places, chunk in caption_chunks(model, words, captions, batch_size):
        matrix[:, places] = scored(model, encoded, chunk)
    return matrix


def caption_chunks(
    model: Matcher, words: FeatureStore, captions: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Encoding]]:
    """Captions encoded by and by, from short to long: places in ``captions`` and what stands there."""
    by_length = np.argsort(words.lengths[captions], kind="stable")
    for places in progress(list(_chunks(by_length, CAPTIONS_AT_ONCE)), desc="score", leave=False):
        yield places, encode_captions(model, words, captions[places], batch_size)


def image_vectors(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """One vector an image: (N, E) float32, see ``pooled``.

    Raises:
        UserError: a value is NaN.
    """
    return _numbers(pooled(encode_images(model, store, rows, batch_size)))


def caption_vectors(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """One vector a caption: (C, E) float32, see ``pooled``; sets are not all held at once.

    Raises:
        UserError: a value is NaN.
    """
    if model.pooled:
        return _numbers(encode_captions(model, store, rows, batch_size).vectors)
    parts = [(places, _numbers(pooled(chunk))) for places, chunk in caption_chunks(model, store, rows, batch_size)]
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return np.concatenate([vectors for _, vectors in parts])[order]


def pooled(encoding: Encoding) -> torch.Tensor:
    """A matcher's own vectors, or the mean of each set, L2-normalised: (B, E). What a shortlist is found by."""
    if encoding.mask is None:
        return encoding.vectors
    return F.normalize(masked_mean(encoding.vectors, encoding.mask), dim=-1)


@torch.inference_mode()
def probe_similarity(
    model: Matcher, regions: FeatureStore, words: FeatureStore, probe: Split, batch_size: int
) -> np.ndarray:
    """Similarity image x caption within each pair of the probe split: (pairs, 2, 2) float32."""
    if not len(probe.images):
        return np.zeros((0, 2, 2), dtype=np.float32)
    images = encode_images(model, regions, probe.images, batch_size)
    captions = encode_captions(model, words, probe.captions, batch_size)
    pairs = [slice(start, start + 2) for start in range(0, len(probe.images), 2)]
    return np.stack([scored(model, images[pair], captions[pair]) for pair in pairs])


@torch.inference_mode()
def scored(model: Matcher, images: Encoding, captions: Encoding, *, exact: bool = False) -> np.ndarray:
    """Similarity of encoded images and captions: (N, C) float32. ``exact``: in fp32 where the matcher's is rounded.

    Raises:
        UserError: a score is NaN.
    """
    was_training = model.training
    model.eval()
    scores = (model.exact_similarity if exact else model.similarity)(images, captions)
    model.train(was_training)
    return _numbers(scores)


def _numbers(values: torch.Tensor) -> np.ndarray:
    """In NumPy, float32; NaN, which no comparison ranks behind anything, would come first."""
    found = values.float().cpu().numpy()
    if np.isnan(found).any():
        raise UserError(
            "the matcher gives NaN in place of scores: its training came apart (a lower train.lr, train.clip or "
            "train.precision fp32 may help), or region or token features are not finite"
        )
    return found


def _encode(
    model: Matcher,
    encode: Callable[[Regions | Words], Encoding],
    read: Callable[[FeatureStore, np.ndarray], Regions | Words],
    store: FeatureStore,
    rows: np.ndarray,
    batch_size: int,
) -> Encoding:
    """Rows of similar length are encoded together, the longest first: a set's size is known from the start."""
    was_training, device = model.training, next(model.parameters(), torch.empty(0)).device
    model.eval()
    from_long = np.argsort(-store.lengths[rows], kind="stable")
    vectors, mask = None, None
    for places in progress(list(_chunks(from_long, batch_size)), desc="encode", leave=False):
        part = encode(read(store, rows[places]).to(device))
        index = torch.from_numpy(places).to(device)
        if vectors is None:
            vectors = part.vectors.new_zeros(len(rows), *part.vectors.shape[1:], dtype=torch.float32)
            mask = None if part.mask is None else part.mask.new_zeros(len(rows), part.mask.shape[1])
        if mask is None:
            vectors[index] = part.vectors.float()
        else:
            vectors[index, : part.mask.shape[1]] = part.vectors.float()
            mask[index, : part.mask.shape[1]] = part.mask
    model.train(was_training)
    return Encoding(vectors, mask)


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
