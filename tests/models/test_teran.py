"""Alignments of regions and words against loops over pairs, in tiles of any size and without the whole matrix."""

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from crossmodal.batch import Encoding, Words
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.scoring import encode_captions
from crossmodal.models.base import InputSizes
from crossmodal.models.teran import TeranMatcher, align, aligned_words
from crossmodal.settings.models import Teran
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").teran
MODES = typing.get_args(Teran.model_fields["alignment"].annotation)


def score_of_pair(regions, words, mode):
    """One image and one caption, (R, E) and (W, E), by the definitions."""
    cosines = [[region @ word for word in words] for region in regions]
    best_region = [max(row[place] for row in cosines) for place in range(len(words))]
    best_word = [max(row) for row in cosines]
    if mode == "scan_sentences":
        return sum(attended_cosine(place, regions, words, cosines) for place in range(len(regions)))
    return {
        "MrSw": lambda: sum(best_region),
        "MwSr": lambda: sum(best_word),
        "symm": lambda: sum(best_region) + sum(best_word),
        "MrAVGw": lambda: sum(best_region) / len(words),
        "sum": lambda: sum(map(sum, cosines)),
        "mean": lambda: sum(map(sum, cosines)) / (len(words) * len(regions)),
    }[mode]()


def attended_cosine(place, regions, words, cosines):
    """Cosine of a region with the words as it attends to them (SCAN, eqs. 1 to 5, temperature 1)."""
    logits = []
    for word in range(len(words)):
        column = torch.stack([row[word].clamp(min=0) for row in cosines])
        logits.append(column[place] / column.norm().clamp(min=1e-12))
    weights = torch.softmax(torch.stack(logits), dim=0)
    attended = sum(weight * word for weight, word in zip(weights, words, strict=True))
    return F.cosine_similarity(regions[place], attended, dim=0)


def slow(images, captions, mode):
    return torch.stack(
        [
            torch.stack(
                [
                    score_of_pair(image[of_image], caption[of_caption], mode)
                    for caption, of_caption in zip(captions.vectors, captions.mask, strict=True)
                ]
            )
            for image, of_image in zip(images.vectors, images.mask, strict=True)
        ]
    )


def random_sets(count, size, seed, dim=6):
    """Sets of 1 to ``size`` unit vectors, some places empty between them, rubbish where nothing is."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, size, generator=generator) < 0.7
    mask[0], mask[1] = True, False
    mask[1:, size // 2] = True
    vectors = F.normalize(torch.randn(count, size, dim, generator=generator), dim=-1)
    return Encoding(vectors.masked_fill(~mask.unsqueeze(-1), 50.0).requires_grad_(), mask)


@pytest.fixture
def sets():
    return random_sets(5, 7, seed=0), random_sets(6, 4, seed=1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tile", [1, 60, 337, 2**22])
def test_against_the_loop_over_pairs(sets, mode, tile):
    """Scores and gradients, in tiles of one pair, of a few images and captions, and of all."""
    images, captions = sets
    expected = slow(images, captions, mode)
    ours = align(images, captions, mode, cells=tile)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(align(images, captions, mode, cells=tile), expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    leaves = [images.vectors, captions.vectors]
    of_loop = torch.autograd.grad((expected * weight).sum(), leaves)
    for leaf, gradient, other in zip(leaves, torch.autograd.grad((ours * weight).sum(), leaves), of_loop, strict=True):
        along = F.normalize(leaf.detach(), dim=-1)  # members have length 1: no gradient along them reaches the model
        across = [value - (value * along).sum(dim=-1, keepdim=True) * along for value in (gradient, other)]
        torch.testing.assert_close(*across, atol=1e-5, rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """The most elements that any tensor had that was made meanwhile."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [True, False])
def test_the_whole_matrix_is_never_made(mode, training):
    """24 x 30 pairs of 9 x 8 cosines are 51,840; tiles are held to 2,000, sets have up to 1,296 numbers."""
    images, captions = random_sets(24, 9, seed=3), random_sets(30, 8, seed=4)
    with LargestTensor() as largest, torch.set_grad_enabled(training):
        score = align(images, captions, mode, cells=2000).sum()
        if training:
            score.backward()
    assert max(images.vectors.numel(), captions.vectors.numel()) <= largest.elements <= 2000


@pytest.mark.parametrize("mode", MODES)
def test_training_keeps_no_cosines(mode):
    """What is kept for the backward pass grows with pairs x (words + regions), not with their product."""
    count, size, dim = 16, 32, 4
    images, captions = random_sets(count, size, seed=5, dim=dim), random_sets(count, size, seed=6, dim=dim)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        align(images, captions, mode, cells=4096)
    cosines, of_pairs, of_sets = (count * size) ** 2, count * count * 2 * size, 2 * count * size * dim
    assert sum(kept.values()) <= of_pairs + 8 * of_sets < cosines / 4


@pytest.mark.parametrize("mode", MODES)
def test_empty_sets_score_zero(sets, mode):
    images, captions = sets
    images.mask[2], captions.mask[3] = False, False
    scores = align(images, captions, mode)
    assert not scores[2].any()
    assert not scores[:, 3].any()
    scores.sum().backward()
    assert images.vectors.grad.isfinite().all()
    assert captions.vectors.grad.isfinite().all()


@pytest.mark.parametrize(
    ("last", "expected"),
    [(2, [[0], [1], [1], [1], [1, 2], [1, 2, 3]]), (1, [[0], [1], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]])],
)
def test_the_ends_of_a_caption_take_no_part(last, expected):
    """From captions of one to six tokens: [CLS] and the last ones are left out, but one token stays."""
    lengths = torch.arange(1, 7)
    compared = aligned_words(torch.arange(8) < lengths[:, None], last)
    assert [row.nonzero().flatten().tolist() for row in compared] == expected


def small_model(mode, **changes):
    torch.manual_seed(0)
    small = {"embed_dim": 16, "visual_dim": 16, "feed_forward": 24, "alignment": mode, "last_tokens": 2}
    return TeranMatcher(PARAMS.model_copy(update=small | changes), InputSizes(regions=10, words=8))


@pytest.mark.parametrize("mode", MODES)
def test_short_captions_have_scores_and_gradients(batch, mode):
    """Captions of one to five tokens in one batch; each image gets a score of its own, nothing is NaN."""
    model, (regions, _) = small_model(mode).train(), batch
    lengths = torch.arange(1, 6)
    words = Words(torch.randn(5, 5, 8), torch.arange(5) < lengths[:, None])
    scores = model.similarity(model.encode_images(regions), model.encode_captions(words))
    assert scores.isfinite().all()
    for column in scores.T:
        assert len(column.detach().unique()) == len(column)
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert model.caption_map.weight.grad.any()


@torch.inference_mode()
def test_a_caption_of_one_word_is_compared_by_it(batch):
    model, (regions, words) = small_model("MrSw").eval(), batch
    one_word = Words(words.features[:1, :3], words.mask[:1, :3])  # [CLS] word [SEP]
    images, caption = model.encode_images(regions), model.encode_captions(one_word)
    word = F.normalize(model.word_set(one_word)[0, 1], dim=-1)
    for row, score in enumerate(model.similarity(images, caption)[:, 0]):
        torch.testing.assert_close(score, (images.vectors[row][images.mask[row]] @ word).max())


@torch.inference_mode()
def test_scores_follow_from_the_alignment(batch):
    """Summed over words, the best regions' cosines are the score MrSw."""
    model, (regions, words) = small_model("MrSw").eval(), batch
    weights = model.alignment(regions, words)
    assert [row.any(dim=0).nonzero().flatten().tolist() for row in weights] == [[1, 2], [1], [1], [1]]
    scores = model.similarity(model.encode_images(regions), model.encode_captions(words))
    best = weights.amax(dim=1)  # (B, L), 0 of words that take no part
    torch.testing.assert_close(((2 * best - 1) * (best > 0)).sum(dim=1), scores.diagonal())


@pytest.mark.parametrize("shared", [True, False])
@torch.inference_mode()
def test_encodings_are_normalised_sets_without_the_ends(batch, shared):
    model, (regions, words) = small_model("MrSw", shared=shared).eval(), batch
    images, captions = model.encode_images(regions), model.encode_captions(words)
    assert images.mask.sum(dim=1).tolist() == [6, 2, 4, 1]  # [I-CLS] is no member
    assert captions.mask.sum(dim=1).tolist() == [2, 1, 1, 1]  # of 5, 3, 4 and 2 tokens
    assert captions.vectors.shape == (4, 2, 16)
    for sets in (images, captions):
        torch.testing.assert_close(sets.vectors[sets.mask].norm(dim=-1), torch.ones(int(sets.mask.sum())))
    moved = dataclasses.replace(regions, boxes=regions.boxes.flip(1))
    assert not torch.allclose(model.encode_images(moved).vectors[0], images.vectors[0], atol=1e-3)


@pytest.mark.parametrize("last", [1, 2])
@torch.inference_mode()
def test_a_caption_of_one_token_is_encoded_in_any_batch(tmp_path, batch, last):
    """Longer captions come first and fix the width; the token itself is compared, and scores are those of it alone."""
    rng = np.random.default_rng(0)
    writer = StoreWriter(tmp_path / "captions", {"features": ("float16", (8,))})
    for length in (5, 5, 5, 1):
        writer.append({"features": rng.normal(size=(length, 8))})
    writer.close()
    store, model = FeatureStore(tmp_path / "captions"), small_model("MrSw", last_tokens=last).eval()
    images = model.encode_images(batch[0])
    alone = [encode_captions(model, store, np.array([row]), 1) for row in range(4)]
    expected = torch.cat([model.similarity(images, caption) for caption in alone], dim=1)
    for size in (1, 2, 3, 4):
        captions = encode_captions(model, store, np.arange(4), size)
        assert captions.mask.sum(dim=1).tolist() == [4 - last] * 3 + [1]
        torch.testing.assert_close(model.similarity(images, captions), expected, atol=1e-5, rtol=1e-5)
    token = Words(torch.tensor(store.read(3, "features").tolist())[None], torch.ones(1, 1, dtype=torch.bool))
    vector = F.normalize(model.word_set(token)[0, 0], dim=-1)
    for row, score in enumerate(expected[:, 3]):
        torch.testing.assert_close(score, (images.vectors[row][images.mask[row]] @ vector).max())
