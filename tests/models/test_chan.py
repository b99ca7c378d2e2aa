"""CHAN's hard assignment against loops over pairs, written from the equations, in tiles of any size."""

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from assertions import raises_naming

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.base import InputSizes
from crossmodal.models.chan import ChanMatcher, hard_assignment
from crossmodal.models.teran import align
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").chan
CODINGS, POOLS = ("visual", "textual", "both"), ("max", "mean", "sum", "lse")


def pooled(values, pool, temperature):
    if pool == "lse":
        return math.log(sum(math.exp(value / temperature) for value in values))
    return {"max": max(values), "sum": sum(values), "mean": sum(values) / len(values)}[pool]


def score_of_pair(regions, words, coding, pool, temperature):
    """One image and one caption, lists of vectors."""
    cosines = [[sum(a * b for a, b in zip(region, word, strict=True)) for word in words] for region in regions]
    visual = [max(row[number] for row in cosines) for number in range(len(words))]
    textual = [max(row) for row in cosines]
    used = {"visual": [visual], "textual": [textual], "both": [visual, textual]}[coding]
    return sum(pooled(values, pool, temperature) for values in used)


def random_sets(count, size, seed, dim=6):
    """Sets of 1 to ``size`` unit vectors with rubbish at padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, size + 1, (count,), generator=generator)
    lengths[0] = size
    mask = torch.arange(size) < lengths[:, None]
    vectors = F.normalize(torch.randn(count, size, dim, generator=generator), dim=-1)
    return Encoding(vectors.masked_fill(~mask.unsqueeze(-1), 50.0), mask)


@pytest.fixture
def sets():
    return random_sets(5, 7, seed=0), random_sets(6, 4, seed=1)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cells", [1, 60, 2**22])
def test_against_the_loop_over_pairs(sets, coding, pool, cells):
    images, captions = sets
    scores = hard_assignment(images, captions, coding, pool, 0.1, cells=cells)
    for row, column in itertools.product(range(5), range(6)):
        regions, words = (
            encoding.vectors[number][encoding.mask[number]].tolist()
            for encoding, number in ((images, row), (captions, column))
        )
        expected = score_of_pair(regions, words, coding, pool, 0.1)
        assert scores[row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "coding", "pool"),
    [("MrSw", "visual", "sum"), ("MrAVGw", "visual", "mean"), ("MwSr", "textual", "sum"), ("symm", "both", "sum")],
)
def test_what_it_has_in_common_with_teran(sets, mode, coding, pool):
    torch.testing.assert_close(hard_assignment(*sets, coding, pool, 0.1), align(*sets, mode))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("coding", CODINGS)
def test_an_empty_set_scores_zero_and_has_no_gradient(sets, coding, pool):
    images, captions = sets
    images.mask[2], captions.mask[3] = False, False
    for encoding in sets:
        encoding.vectors.requires_grad_()
    scores = hard_assignment(images, captions, coding, pool, 0.1)
    assert not scores[2].any()
    assert not scores[:, 3].any()
    scores.sum().backward()
    for encoding, empty in ((images, 2), (captions, 3)):
        assert encoding.vectors.grad.isfinite().all()
        assert not encoding.vectors.grad[empty].any()
        assert encoding.vectors.grad.any()


@pytest.mark.parametrize("pool", POOLS)
def test_training_keeps_no_cosines(pool):
    """What is kept for the backward pass grows with pairs x (words + regions), not with their product."""
    count, size, dim = 16, 32, 4
    images, captions = random_sets(count, size, seed=5, dim=dim), random_sets(count, size, seed=6, dim=dim)
    images.vectors.requires_grad_()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hard_assignment(images, captions, "both", pool, 0.1, cells=4096)
    cosines, of_pairs, of_sets = (count * size) ** 2, count * count * 2 * size, 2 * count * size * dim
    assert sum(kept.values()) <= 4 * of_pairs + 8 * of_sets < cosines / 2


@torch.inference_mode()
def test_attention_among_regions():
    """v + attention(norm(v)), head by head, over the regions that are there."""
    torch.manual_seed(0)
    model = ChanMatcher(PARAMS.model_copy(update={"embed_dim": 6, "attention_heads": 2}), InputSizes(10, 8)).eval()
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    regions = Regions(torch.randn(2, 4, 10), None, mask)
    ours = model.encode_images(regions).vectors
    attention, norm = model.attention.attention, model.attention.norm
    for row, length in enumerate([4, 2]):
        values = model.image_map(regions.features[row, :length])
        inputs = (values - values.mean(dim=1, keepdim=True)) / (
            values.var(dim=1, keepdim=True, correction=0) + norm.eps
        ).sqrt()
        query, key, value = (inputs @ attention.in_proj_weight.T + attention.in_proj_bias).split(6, dim=1)
        heads = []
        for part in (slice(0, 3), slice(3, 6)):
            weights = (query[:, part] @ key[:, part].T / math.sqrt(3)).softmax(dim=1)
            heads.append(weights @ value[:, part])
        expected = F.normalize(values + attention.out_proj(torch.cat(heads, dim=1)), dim=-1)
        torch.testing.assert_close(ours[row, :length], expected)


@torch.inference_mode()
def test_alignment_shows_the_cosines_that_the_score_is_made_of():
    torch.manual_seed(0)
    model = ChanMatcher(PARAMS.model_copy(update={"embed_dim": 6}), InputSizes(10, 8)).eval()
    regions = Regions(torch.randn(3, 6, 10), None, torch.arange(6) < torch.tensor([6, 4, 1])[:, None])
    words = Words(torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([5, 3, 1])[:, None])
    shown = model.alignment(regions, words)
    scores = model.similarity(model.encode_images(regions), model.encode_captions(words)).diagonal()
    best = (2 * shown - 1).masked_fill(~regions.mask.unsqueeze(2), -2).amax(dim=1)  # (B, L)
    torch.testing.assert_close((best * words.mask).sum(dim=1) / words.mask.sum(dim=1), scores)


def test_heads_divide_the_embedding():
    with raises_naming("chan.attention_heads", "5", "chan.embed_dim", "128"):
        ChanMatcher(PARAMS.model_copy(update={"attention_heads": 5}), InputSizes(10, 8))
