"""Evidence for the report from a trained matcher, kept by the evaluate stage: sampled scores, alignment, occlusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from crossmodal.captions.base import IDS
from crossmodal.captions.encoders import ENCODERS
from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split
from crossmodal.evidence.evidence import EVIDENCE_FILE, Evidence
from crossmodal.evidence.occlusion import falls
from crossmodal.evidence.selection import SEED, gallery_queries, shown_pairs, worst_queries
from crossmodal.evidence.words import words_of
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import save_arrays
from crossmodal.inference.scoring import SearchInputs, evaluating, similarity_matrix
from crossmodal.models.base import Matcher
from crossmodal.retrieval.results import SearchResults
from crossmodal.runtime import progress

SAMPLED_IMAGES = 200  # whose scores with all their captions are sampled
NON_MATCHES = 20_000  # scores kept of other pairs
PAIR_CHUNK = 64
LITTLE = 0.1  # of a pair's largest fall


def keep_evidence(
    folder: Path,
    inputs: SearchInputs,
    dataset: Dataset,
    probe: Split,
    results: SearchResults,
    *,
    bert: Path,
    explained: int,
) -> None:
    """Write ``evidence.npz`` into ``folder``.

    Args:
        inputs: of the split that was searched. probe: the split that was scored. results: of both.
        bert: the bert stage's folder; see ``CaptionEncoder.spans``.
        explained: queries of each direction, as the gallery draws them, of which it is kept which regions answer which
            words: by the model's alignment, or by occlusion where it has none. None where regions have no boxes, as
            nothing could be drawn, or captions no tokens.

    Raises:
        UserError: the token ids of the caption store are not those of the dataset's captions.
    """
    regions, words = inputs.regions, inputs.words
    matches, non_matches = sample_scores(inputs)
    drawable = explained and "boxes" in regions.arrays
    selections = (gallery_queries(results, explained), worst_queries(results)) if drawable else ()
    pairs = shown_pairs(selections, results, inputs.split, probe)
    alignments, made = align_pairs(inputs.model, regions, words, pairs), made_boxes(inputs.model)
    occluded = not alignments and made is None and IDS in words.arrays
    if not alignments and not occluded:
        pairs = pairs[:0]
    captions = np.unique(pairs[:, 1])
    spans = {}
    if len(captions):
        texts = [caption for record in dataset.records for caption in record.captions]
        read = ENCODERS[inputs.config.encoder].spans(bert, words.folder)
        spans = {row: read(texts[row], words.read(row, IDS).tolist()) for row in captions.tolist()}
    if occluded:
        groups = {row: words_of(texts[row], spans[row]) for row in spans}
        alignments = occlude_pairs(inputs, pairs, groups)
    evidence = Evidence(
        matches=matches,
        non_matches=non_matches,
        pairs=pairs,
        sizes=np.array([weights.shape for weights in alignments], dtype=np.int64).reshape(-1, 2),
        weights=np.concatenate([np.zeros(0), *(weights.ravel() for weights in alignments)]).astype(np.float16),
        captions=captions,
        lengths=np.array([len(span) for span in spans.values()], dtype=np.int64),
        spans=np.concatenate([np.zeros((0, 2), dtype=np.int32), *spans.values()]),
        boxes=np.zeros((0, 4), dtype=np.float32) if made is None else made.cpu().numpy(),
        occlusion=np.array(occluded),
    )
    save_arrays(evidence, folder / EVIDENCE_FILE)


def sample_scores(inputs: SearchInputs) -> tuple[np.ndarray, np.ndarray]:
    """Scores of SAMPLED_IMAGES images with their own captions, and NON_MATCHES with each other's, or all there are.

    Returns:
        matches (M,) and non-matches (S,), float32.
    """
    generator, split = np.random.default_rng(SEED), inputs.split
    images = np.sort(generator.permutation(len(split.images))[:SAMPLED_IMAGES])
    captions = np.flatnonzero(np.isin(split.caption_image, images))
    sampled = Split(
        split.images[images], split.captions[captions], np.searchsorted(images, split.caption_image[captions])
    )
    matrix = similarity_matrix(replace(inputs, split=sampled))
    own = sampled.caption_image[None, :] == np.arange(len(images))[:, None]
    return matrix[own], generator.permutation(matrix[~own])[:NON_MATCHES]


@torch.inference_mode()
def align_pairs(model: Matcher, regions: FeatureStore, words: FeatureStore, pairs: np.ndarray) -> list[np.ndarray]:
    """``Matcher.alignment`` of images and captions, store rows (P, 2): (R, L) of each; nothing of models without."""
    device = next(model.parameters(), torch.empty(0)).device
    alignments = []
    for start in range(0, len(pairs), PAIR_CHUNK):
        images, captions = pairs[start : start + PAIR_CHUNK].T
        with evaluating(model):
            weights = model.alignment(read_regions(regions, images).to(device), read_words(words, captions).to(device))
        if weights is None:
            break
        made = made_boxes(model)
        counts = regions.lengths[images] if made is None else np.full(len(images), len(made))
        sizes = zip(counts, words.lengths[captions], strict=True)
        parts = zip(weights.float().cpu().numpy(), sizes, strict=True)
        alignments += [part[:rows, :columns] for part, (rows, columns) in parts]
    return alignments


@torch.inference_mode()
def occlude_pairs(inputs: SearchInputs, pairs: np.ndarray, groups: Mapping[int, list[list[int]]]) -> list[np.ndarray]:
    """Weights (R, L) of images and captions, store rows (P, 2), in the form of an alignment.

    By how much the score falls without a region if a word is there (see ``evidence.occlusion``), at each of the word's
    tokens. 0 where it rises, at tokens of no word, and of words with little to say: no fall is above LITTLE of the
    pair's largest.

    Args:
        groups: tokens of each word, by the caption's row.
    """
    device = next(inputs.model.parameters(), torch.empty(0)).device
    found: dict[tuple[int, int], np.ndarray] = {}
    with evaluating(inputs.model):
        for caption in progress(np.unique(pairs[:, 1]).tolist(), desc="occlude", leave=False):
            images, tokens = pairs[pairs[:, 1] == caption, 0], [np.array(word) for word in groups[caption]]
            regions = read_regions(inputs.regions, images).to(device)
            words = read_words(inputs.words, np.array([caption])).to(device)
            parts = falls(inputs.model, regions, words, tokens, inputs.batch_size) if tokens else [None] * len(images)
            for image, part in zip(images.tolist(), parts, strict=True):
                weights = np.zeros((inputs.regions.lengths[image], inputs.words.lengths[caption]), dtype=np.float32)
                for number, word in enumerate(tokens):
                    if part.regions[number].max() > LITTLE * part.regions.max():
                        weights[:, word] = np.maximum(part.regions[number], 0)[:, None]
                found[image, caption] = weights
    return [found[image, caption] for image, caption in pairs.tolist()]


def made_boxes(model: Matcher) -> torch.Tensor | None:
    """Boxes (R, 4) of the regions that a matcher makes of what is stored; None where it takes the stored ones."""
    return (model.members() or [model])[0].image.boxes
