"""Falls of scores without regions and words, against the same pairs scored one by one."""

import numpy as np
import pytest
import torch

from crossmodal.batch import Regions, Words
from crossmodal.evidence.explain import explain
from crossmodal.evidence.occlusion import chunks_of_images, falls, kept_alone, without_each
from crossmodal.features.batches import read_regions, read_words
from crossmodal.inference.scoring import scored


def score(model, regions, words):
    """Of one image and one caption, whose regions and tokens are given as arrays."""
    mask = torch.ones(1, len(regions.features), dtype=torch.bool)
    image = Regions(regions.features[None], regions.boxes[None], mask)
    caption = Words(words[None], torch.ones(1, len(words), dtype=torch.bool))
    return scored(model, model.encode_regions(image), model.encode_text(caption))[0, 0]


@torch.inference_mode()
def slow(model, regions, words, groups):
    """Falls of one image, every variant scored by itself."""
    count, tokens = len(regions.features), np.arange(len(words))

    def at(region=None, group=()):
        kept = [n for n in range(count) if n != region]
        part = Regions(regions.features[kept], regions.boxes[kept], None)
        return score(model, part, words[np.setdiff1d(tokens, group)])

    of_regions = [[at() - at(n) - at(None, group) + at(n, group) for n in range(count)] for group in groups]
    return np.array(of_regions), np.array([at() - at(None, group) for group in groups])


@pytest.mark.parametrize("name", ["tern", "vse_infty", "vsepp", "vsrn", "scan"])
def test_falls_are_those_of_pairs_scored_one_by_one(material, name):
    inputs = material(name)
    long = np.flatnonzero(inputs.words.lengths[inputs.split.captions] >= 5)[0]
    rows, caption = inputs.split.images[:4], inputs.split.captions[long : long + 1]
    groups = [np.array([1]), np.array([2, 3])]
    regions, words = read_regions(inputs.regions, rows), read_words(inputs.words, caption)
    found = falls(inputs.model, regions, words, groups, variants=7)
    assert [fall.regions.shape for fall in found] == [(2, inputs.regions.lengths[row]) for row in rows]
    for number, (row, fall) in enumerate(zip(rows, found, strict=True)):
        own = slice(0, inputs.regions.lengths[row])
        image = Regions(regions.features[number, own], regions.boxes[number, own], None)
        expected, of_words = slow(inputs.model, image, words.features[0], groups)
        np.testing.assert_allclose(fall.regions, expected, atol=2e-6)
        np.testing.assert_allclose(fall.words, of_words, atol=2e-6)
        assert np.abs(expected).max() > 1e-4


def test_an_image_of_one_region_and_a_caption_of_one_token_do_not_fall(batch, save_model, tmp_path, material):
    inputs = material("vsepp")
    row = inputs.split.images[:1]
    regions, words = read_regions(inputs.regions, row), read_words(inputs.words, inputs.split.captions[:1])
    one = Regions(regions.features[:, :1], regions.boxes[:, :1], regions.mask[:, :1])
    (fall,) = falls(inputs.model, one, kept_alone(words, [[0]]), [np.array([0])])
    assert fall.regions.tolist() == [[0.0]]
    assert fall.words.tolist() == [0.0]


def test_variants_and_kept_tokens(batch):
    regions, words = batch
    variants, starts = without_each(regions)
    assert starts.tolist() == [0, 7, 10, 15, 16]  # images of 6, 2, 4 and 1 regions
    assert variants.mask[8].tolist() == [False, True, False, False, False, False]
    assert variants.mask[15].tolist() == regions.mask[3].tolist()
    kept = kept_alone(words, [[0, 2, 4], [1], [3, 0], [0, 1]])
    assert kept.mask.sum(dim=1).tolist() == [3, 1, 2, 2]
    torch.testing.assert_close(kept.features[0], words.features[0, [0, 2, 4]])
    torch.testing.assert_close(kept.features[2, :2], words.features[2, [0, 3]])
    assert list(chunks_of_images([3, 3, 9, 1, 1], 8)) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert list(chunks_of_images([], 8)) == []


@pytest.mark.parametrize(("name", "kind"), [("tern", "occlusion"), ("scan", "alignment")])
def test_strengths_are_shares_of_the_largest_of_all_images(material, name, kind):
    inputs = material(name)
    rows, caption = inputs.split.images[:4], inputs.split.captions[:1]
    regions, words = read_regions(inputs.regions, rows), read_words(inputs.words, caption)
    groups = [np.array([0]), np.array([1, 2])]
    found_kind, found = explain(inputs.model, regions, words, groups)
    assert found_kind == kind
    assert max(one.strength.max() for one in found) == pytest.approx(1)
    assert max(one.word_strength.max() for one in found) == pytest.approx(1)
    assert min(one.strength.min() for one in found) >= 0
    assert [one.strength.shape for one in found] == [(2, inputs.regions.lengths[row]) for row in rows]
    if kind == "alignment":
        with torch.inference_mode():
            weights = inputs.model.alignment(regions, words[torch.zeros(4, dtype=torch.int64)]).numpy()
        part = weights[1, : inputs.regions.lengths[rows[1]], 1:3].mean(axis=1)
        expected = np.maximum(part - np.median(part), 0)
        ratio = found[1].strength[1] / np.where(expected > 0, expected, 1)
        assert np.ptp(ratio[expected > 0]) < 1e-4 * ratio.max()
