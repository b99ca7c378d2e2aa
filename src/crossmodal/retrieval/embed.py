"""Embeddings of many images or captions with a trained matcher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from crossmodal.datasets.splits import Split
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Matcher, Regions, Words
from crossmodal.runtime import progress


@torch.inference_mode()
def embed_images(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Embeddings of the images of ``rows``, in that order: (rows, E) float32."""
    return _embed(model.encode_images, read_regions, model, store, rows, batch_size)


@torch.inference_mode()
def embed_captions(model: Matcher, store: FeatureStore, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Embeddings of the captions of ``rows``, in that order: (rows, E) float32."""
    return _embed(model.encode_captions, read_words, model, store, rows, batch_size)


def probe_similarity(
    model: Matcher, regions: FeatureStore, words: FeatureStore, probe: Split, batch_size: int
) -> np.ndarray:
    """Similarity image x caption within each pair of the probe split: (pairs, 2, 2) float32."""
    if not len(probe.images):
        return np.zeros((0, 2, 2), dtype=np.float32)
    images = torch.from_numpy(embed_images(model, regions, probe.images, batch_size))
    captions = torch.from_numpy(embed_captions(model, words, probe.captions, batch_size))
    pairs = zip(images.split(2), captions.split(2), strict=True)
    return torch.stack([model.similarity(*pair) for pair in pairs]).numpy()


def _embed(
    encode: Callable[[Regions | Words], torch.Tensor],
    read: Callable[[FeatureStore, np.ndarray], Regions | Words],
    model: Matcher,
    store: FeatureStore,
    rows: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    by_length = np.argsort(store.lengths[rows], kind="stable")
    embeddings: np.ndarray | None = None
    for start in progress(range(0, len(rows), batch_size), desc="embed", leave=False):
        places = by_length[start : start + batch_size]
        batch = encode(read(store, rows[places]).to(device)).float().cpu().numpy()
        if embeddings is None:
            embeddings = np.empty((len(by_length), batch.shape[1]), dtype=np.float32)
        embeddings[places] = batch
    model.train(was_training)
    return embeddings
