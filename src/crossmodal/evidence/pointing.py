"""Pointing of a trained matcher: how often the region that answers a phrase most lies on what the phrase names.

Which region answers a phrase is asked in two ways. By the alignment, of models that have one: the largest weight of any
of the phrase's tokens, as in arXiv 2006.09920; and likewise of each word by itself, with the mean of its tokens, as the
pages show it. By occlusion, of all models: the region without which the score of the phrase falls most. The phrase is
the caption's first token, the tokens of the phrase's words and the caption's last token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal.batch import Words
from crossmodal.captions.base import IDS
from crossmodal.captions.encoders import ENCODERS
from crossmodal.datasets.phrases import Phrase, read_phrases
from crossmodal.datasets.records import Dataset
from crossmodal.evaluation.pointing import percentages, right_regions, strongest_is_right
from crossmodal.evidence.alignment import align_pairs, made_boxes
from crossmodal.evidence.occlusion import chunks_of_images, kept_alone, region_falls
from crossmodal.evidence.pointed import Pointed
from crossmodal.evidence.selection import SEED
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import SearchInputs, evaluating


@dataclass(frozen=True)
class Named:
    """A phrase of an image: its ``number`` in the dataset, store rows, tokens of each word, and the right regions.

    right (R, 2) bool: see evaluation.pointing.right_regions.
    """

    number: int
    image: int
    caption: int
    words: tuple[np.ndarray, ...]
    right: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of the phrase."""
        return np.unique(np.concatenate(self.words))


def measure_pointing(
    inputs: SearchInputs, dataset: Dataset, *, bert: Path, images: int
) -> tuple[dict[str, Any], Pointed] | None:
    """Pointing figures in percent, nested as metrics/test.json has them, and the region of each phrase.

    None where the dataset names no boxes, captions have no tokens or regions have no boxes.

    Args:
        bert: the bert stage's folder; see ``CaptionEncoder.spans``.
        images: at most so many, drawn at random; 0: none.

    Raises:
        UserError: the phrases or the token ids of the caption store are not those of the dataset's captions.
    """
    if not images or "boxes" not in inputs.regions.arrays or IDS not in inputs.words.arrays:
        return None
    phrases = named_phrases(inputs, dataset, bert, images)
    if not phrases:
        return None
    weights = aligned(inputs, phrases)
    figures: dict[str, Any] = {"phrases": len(phrases)}
    strongest = [part.max(axis=1) for part in weights]
    if weights:
        figures["alignment"] = percentages(hits(phrases, strongest))
        figures["words"] = percentages(
            [
                strongest_is_right(part[:, np.isin(phrase.tokens, word)].mean(axis=1), phrase.right)
                for phrase, part in zip(phrases, weights, strict=True)
                for word in phrase.words
            ]
        )
    if made_boxes(inputs.model) is None:  # regions that the matcher makes of an image cannot be left out
        falls = occlusion(inputs, phrases)
        figures["occlusion"] = percentages(hits(phrases, falls))
        strongest = strongest or falls
    if not strongest:
        return None
    figures["chance"] = percentages([phrase.right.mean(axis=0) for phrase in phrases])
    figures["bound"] = percentages([phrase.right.any(axis=0) for phrase in phrases])
    pointed = Pointed(
        phrase=np.array([phrase.number for phrase in phrases]),
        image=np.array([phrase.image for phrase in phrases]),
        caption=np.array([phrase.caption for phrase in phrases]),
        region=np.array([values.argmax() for values in strongest]),
        right=np.stack(hits(phrases, strongest)),
    )
    return figures, pointed


def hits(phrases: list[Named], weights: list[np.ndarray]) -> list[np.ndarray]:
    """``strongest_is_right`` of each phrase, from its regions' weights (R,)."""
    pairs = zip(phrases, weights, strict=True)
    return [strongest_is_right(values, phrase.right) for phrase, values in pairs]


def named_phrases(inputs: SearchInputs, dataset: Dataset, bert: Path, images: int) -> list[Named]:
    """The phrases of at most ``images`` images of the split, image by image.

    Words without a token, as captions.max_tokens cuts them off, are left out, and with them phrases that have no other.
    """
    row_of = {dataset.records[row].id: int(row) for row in inputs.split.images}
    of_image: dict[int, list[tuple[int, Phrase]]] = {}
    for number, phrase in enumerate(read_phrases(dataset, "test")):
        if phrase.image in row_of:
            of_image.setdefault(row_of[phrase.image], []).append((number, phrase))
    if not of_image:
        return []
    drawn = np.random.default_rng((SEED, 3)).permutation(sorted(of_image))[:images]
    offsets, made = dataset.caption_offsets(), made_boxes(inputs.model)
    read = ENCODERS[inputs.config.encoder].spans(bert, inputs.words.folder)
    found = []
    for row in np.sort(drawn).tolist():
        record, spans = dataset.records[row], {}
        boxes = inputs.regions.read(row, "boxes") if made is None else made.cpu().numpy()
        scale = np.tile([record.width, record.height], 2)
        truth = [np.array(phrase.boxes) / scale for _, phrase in of_image[row]]
        for (number, phrase), right in zip(of_image[row], right_regions(boxes, truth), strict=True):
            caption = offsets[row] + phrase.caption
            if caption not in spans:
                spans[caption] = read(record.captions[phrase.caption], inputs.words.read(caption, IDS).tolist())
            words = tuple(filter(len, (tokens_of(spans[caption], *word) for word in phrase.words)))
            if words:
                found.append(Named(number, row, caption, words, right))
    return found


def tokens_of(spans: np.ndarray, first: int, last: int) -> np.ndarray:
    """Numbers of the tokens that share a character with a word, from the characters (L, 2) of each token."""
    starts, ends = spans.T
    return np.flatnonzero((starts < last) & (ends > first) & (ends > starts))


def aligned(inputs: SearchInputs, phrases: list[Named]) -> list[np.ndarray]:
    """``Matcher.alignment`` of each phrase's image with its tokens: (R, tokens) each; nothing of models without."""
    pairs = list(dict.fromkeys((phrase.image, phrase.caption) for phrase in phrases))
    weights = align_pairs(inputs.model, inputs.regions, inputs.words, np.array(pairs))
    if not weights:
        return []
    of_pair = dict(zip(pairs, weights, strict=True))
    return [of_pair[phrase.image, phrase.caption][:, phrase.tokens] for phrase in phrases]


@torch.inference_mode()
def occlusion(inputs: SearchInputs, phrases: list[Named]) -> list[np.ndarray]:
    """By how much the score of each phrase with its image falls without each region: (R,) each.

    Args:
        phrases: those of an image follow each other. An image of one region has falls of 0.
    """
    model, falls = inputs.model, []
    device = next(model.parameters(), torch.empty(0)).device
    rows, first = np.unique([phrase.image for phrase in phrases], return_index=True)
    ends = [*first.tolist(), len(phrases)]
    with evaluating(model):
        for chunk in chunks_of_images(inputs.regions.lengths[rows], inputs.batch_size):
            start, named = ends[chunk.start], phrases[ends[chunk.start] : ends[chunk.stop]]
            captions = model.encode_text(phrase_words(inputs.words, named).to(device))
            of_image = [slice(ends[n] - start, ends[n + 1] - start) for n in range(chunk.start, chunk.stop)]
            regions = read_regions(inputs.regions, rows[chunk])
            falls += [fall for part in region_falls(model, regions, captions, of_image) for fall in part.T]
    return falls


def phrase_words(store: FeatureStore, phrases: list[Named]) -> Words:
    """Of each phrase's caption the first token, the phrase's and the last one; those that follow a gap move up."""
    captions = np.array([phrase.caption for phrase in phrases])
    kept = [[0, *phrase.tokens, store.lengths[phrase.caption] - 1] for phrase in phrases]
    return kept_alone(read_words(store, captions), kept)
