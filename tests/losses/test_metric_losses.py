"""pytorch-metric-learning's losses across modalities, against loops written from their equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from metric_pairs import ALPHA, BASE, BETA, IMAGE_OF, MARGIN, TEMPERATURE, nine_pairs, settings_of
from pytorch_metric_learning import losses, reducers

from crossmodal.losses.metric import MINERS, MetricLoss
from crossmodal.losses.pair import infonce_loss

NAMES = ["contrastive", "triplet", "ntxent", "multisimilarity"]


@pytest.fixture
def pairs():
    return nine_pairs()


def euclidean(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def snr(a, b):
    """Variance of the noise b - a over the variance of the anchor a (arXiv 1904.02616, eq. 4)."""

    def variance(values):
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / (len(values) - 1)

    return variance([y - x for x, y in zip(a, b, strict=True)]) / variance(a)


def one_way(name, compare, nearer_is_larger, anchors, references, mask_same_image):
    """Losses of all pairs, triplets or anchors of one direction, in groups that are averaged each by itself."""
    groups = {"positive": [], "negative": [], "all": []}
    sign = 1 if nearer_is_larger else -1
    for a, anchor in enumerate(anchors):
        scores = [compare(anchor, reference) for reference in references]
        same = [i for i in range(9) if IMAGE_OF[i] == IMAGE_OF[a]]
        positives = [scores[i] for i in ([a] if mask_same_image else same)]
        negatives = [scores[i] for i in range(9) if i not in same]
        if name == "contrastive":
            near, far = (1, 0) if nearer_is_larger else (0, 1)
            groups["positive"] += [max(0, sign * (near - p)) for p in positives]
            groups["negative"] += [max(0, sign * (n - far)) for n in negatives]
        elif name == "triplet":
            groups["all"] += [max(0, sign * (n - p) + MARGIN) for p in positives for n in negatives]
        elif name == "ntxent":
            against = sum(math.exp(sign * n / TEMPERATURE) for n in negatives)
            for p in positives:
                exponent = math.exp(sign * p / TEMPERATURE)
                groups["all"].append(-math.log(exponent / (exponent + against)))
        else:
            attract = math.log(1 + sum(math.exp(-ALPHA * sign * (p - BASE)) for p in positives)) / ALPHA
            repel = math.log(1 + sum(math.exp(BETA * sign * (n - BASE)) for n in negatives)) / BETA
            groups["all"].append(attract + repel)
    return [group for group in groups.values() if group]


REDUCE = {
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "nonzero": lambda values: sum(values) / max(1, sum(value > 0 for value in values)),
    "threshold": lambda values: REDUCE["mean"]([value for value in values if 0.2 < value < 1.5] or [0]),
}
DEFAULTS = {  # distance and reducer that the library takes
    "contrastive": ("euclidean", "nonzero"),
    "triplet": ("euclidean", "nonzero"),
    "ntxent": ("cosine", "mean"),
    "multisimilarity": ("cosine", "mean"),
}
COMPARE = {"euclidean": (euclidean, False), "cosine": (cosine, True), "dot": (cosine, True), "snr": (snr, False)}


def loop(name, images, captions, *, distance=None, reducer=None, mask_same_image=True):
    """Per pair: the mean of both directions' figures; a sum is over the pairs and so divided by their number."""
    compare, inverted = COMPARE[distance or DEFAULTS[name][0]]
    reduce = REDUCE[reducer or DEFAULTS[name][1]]
    images, captions = images.tolist(), captions.tolist()
    total = 0
    for anchors, references in ((images, captions), (captions, images)):
        groups = one_way(name, compare, inverted, anchors, references, mask_same_image)
        total += sum(reduce(group) for group in groups) / 2
    return total / 9 if reducer == "sum" else total


@pytest.mark.parametrize("mask_same_image", [True, False])
@pytest.mark.parametrize("distance", [None, "euclidean", "cosine", "dot", "snr"])
@pytest.mark.parametrize("name", NAMES)
def test_against_the_loop(pairs, name, distance, mask_same_image):
    loss = MetricLoss(settings_of(name, distance=distance, mask_same_image=mask_same_image))
    expected = loop(name, *pairs, distance=distance, mask_same_image=mask_same_image)
    assert expected > 0.01
    assert loss(*pairs, IMAGE_OF).item() / 9 == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("reducer", ["mean", "sum", "nonzero", "threshold"])
@pytest.mark.parametrize("name", NAMES)
def test_reducers_against_the_loop(pairs, name, reducer):
    kwargs = {"reducer": {"low": 0.2, "high": 1.5}} if reducer == "threshold" else {}
    loss = MetricLoss(settings_of(name, reducer=reducer, kwargs=kwargs))
    expected = loop(name, *pairs, reducer=reducer)
    assert expected > 0.01
    assert loss(*pairs, IMAGE_OF).item() / 9 == pytest.approx(expected, rel=2e-5)


def test_per_anchor_reducer_weighs_anchors_alike(pairs):
    """Every anchor has one positive but another number of negatives: the mean over anchors of their means."""
    loss = MetricLoss(settings_of("contrastive", reducer="per_anchor"))(*pairs, IMAGE_OF).item() / 9
    expected = 0
    for anchors, references in (pairs, pairs[::-1]):
        for a, anchor in enumerate(anchors.tolist()):
            costs = [
                max(0, 1 - euclidean(anchor, references[n].tolist())) for n in range(9) if IMAGE_OF[n] != IMAGE_OF[a]
            ]
            expected += (euclidean(anchor, references[a].tolist()) + sum(costs) / len(costs)) / 9 / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_contrastive_margins(pairs):
    settings = settings_of("contrastive", positive_margin=0.4, negative_margin=1.2, reducer="mean")
    expected = 0
    for anchors, references in (pairs, pairs[::-1]):
        d = torch.cdist(anchors, references)
        other = IMAGE_OF[:, None] != IMAGE_OF[None, :]
        expected += ((d.diagonal() - 0.4).clamp(min=0).mean() + (1.2 - d[other]).clamp(min=0).mean()) / 2
    assert MetricLoss(settings)(*pairs, IMAGE_OF).item() / 9 == pytest.approx(expected.item(), rel=1e-5)


def test_ntxent_is_infonce_at_a_fixed_temperature(pairs):
    images, captions = pairs
    same = IMAGE_OF[:, None] == IMAGE_OF[None, :]
    expected = infonce_loss(images @ captions.T, temperature=TEMPERATURE, ignore=same)
    torch.testing.assert_close(MetricLoss(settings_of("ntxent"))(images, captions, IMAGE_OF), expected)


@pytest.mark.parametrize("miner", [None, "batch_easy_hard", "triplet_margin", "pair_margin"])
def test_ntxent_is_the_librarys(pairs, miner):
    """Also where a miner leaves anchors without negatives, or names a negative several times."""
    ours = MetricLoss(settings_of("ntxent", miner=miner, mask_same_image=False))
    theirs = MetricLoss(settings_of("ntxent", miner=miner, mask_same_image=False))
    theirs.loss = losses.NTXentLoss(TEMPERATURE)
    values = [loss(*pairs, IMAGE_OF) for loss in (ours, theirs)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, pairs) for value in values))


@pytest.mark.parametrize("distance", [None, "cosine"])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_within_a_modality_do_not_count(name, distance):
    """Captions move so that their similarities with each other change and those with the images do not."""
    generator = torch.Generator().manual_seed(1)
    flat = F.normalize(torch.randn(9, 3, generator=generator), dim=1)
    images = F.pad(flat, (0, 2))[:, :5]
    inner = F.normalize(torch.randn(9, 3, generator=generator), dim=1) * 0.6
    angles = torch.rand(2, 9, generator=generator) * 6.28
    both = [torch.cat([inner, 0.8 * torch.stack([a.cos(), a.sin()], dim=1)], dim=1) for a in angles]
    labels = torch.arange(9)
    assert (both[0] @ both[0].T - both[1] @ both[1].T).abs().max() > 0.5
    torch.testing.assert_close(images @ both[0].T, images @ both[1].T)
    loss = MetricLoss(settings_of(name, distance=distance))
    for order in (1, -1):  # captions move, then images do
        values = [loss(*(images, captions)[::order], labels) for captions in both]
        torch.testing.assert_close(*values)
        assert values[0] > 0


def test_the_batch_hard_miner_keeps_each_anchors_hardest_negative(pairs):
    settings = settings_of("triplet", miner="batch_hard", distance="cosine", reducer="sum")
    scores = (pairs[0] @ pairs[1].T).detach()
    expected = 0
    for s in (scores, scores.T):
        for a in range(9):
            hardest = max(float(s[a, n]) for n in range(9) if n != a)
            expected += max(0, hardest - float(s[a, a]) + MARGIN) / 2
    every_image_another = torch.arange(9)
    assert MetricLoss(settings)(*pairs, every_image_another).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def triplets_that_count(pairs, keep):
    """Sum over both directions of the triplet losses for which ``keep(s_ap, s_an)``."""
    total = 0
    for anchors, references in (pairs, pairs[::-1]):
        s = (anchors @ references.T).tolist()
        for a in range(9):
            for n in range(9):
                if IMAGE_OF[n] != IMAGE_OF[a] and keep(s[a][a], s[a][n]):
                    total += max(0, s[a][n] - s[a][a] + MARGIN)
    return total / 2


@pytest.mark.parametrize(
    ("kind", "keep"),
    [
        ("all", lambda p, n: p - n <= 0.25),
        ("hard", lambda p, n: p - n <= 0),
        ("semihard", lambda p, n: 0 < p - n <= 0.25),
    ],
)
def test_the_triplet_margin_miner_chooses_its_triplets(pairs, kind, keep):
    kwargs = {"miner": {"margin": 0.25, "type_of_triplets": kind}}
    settings = settings_of("triplet", miner="triplet_margin", distance="cosine", reducer="sum", kwargs=kwargs)
    value = MetricLoss(settings)(*pairs, IMAGE_OF).item()
    assert value == pytest.approx(triplets_that_count(pairs, keep), rel=1e-5)
    assert 0 < value < triplets_that_count(pairs, lambda p, n: True)


@pytest.mark.parametrize("mask_same_image", [True, False])
@pytest.mark.parametrize("miner", sorted(MINERS))
def test_every_miner_works_and_leaves_same_image_negatives_alone(pairs, miner, mask_same_image):
    torch.manual_seed(0)
    name = "triplet" if miner in ("angular", "distance_weighted") else "contrastive"
    loss = MetricLoss(settings_of(name, miner=miner, mask_same_image=mask_same_image))
    seen = []
    compute = loss.loss.compute_loss
    loss.loss.compute_loss = lambda *args: seen.append(args[2]) or compute(*args)
    loss(*pairs, IMAGE_OF).backward()
    assert len(seen) == 2
    assert sum(index.numel() for indices in seen for index in indices) > 0
    for indices in seen:
        anchors, positives = indices[:2]
        if mask_same_image:
            assert (anchors == positives).all()
        assert (IMAGE_OF[anchors] == IMAGE_OF[positives]).all()
        others = indices[0] if len(indices) == 3 else indices[2]
        assert (IMAGE_OF[others] != IMAGE_OF[indices[-1]]).all()


@pytest.mark.parametrize(
    ("regularizer", "of"),
    [("l1", lambda values: values.abs().sum(dim=1)), ("zero_mean", lambda values: values.sum(dim=1).abs())],
)
@pytest.mark.parametrize("name", NAMES)
def test_regularizers_add_their_figure_of_both_modalities(pairs, name, regularizer, of):
    plain = MetricLoss(settings_of(name, reducer="mean"))(*pairs, IMAGE_OF)
    added = MetricLoss(settings_of(name, reducer="mean", regularizer=regularizer, regularizer_weight=0.3))
    expected = plain / 9 + 0.3 * (of(pairs[0]).mean() + of(pairs[1]).mean()) / 2
    torch.testing.assert_close(added(*pairs, IMAGE_OF) / 9, expected)


def test_same_image_captions_are_no_negatives(pairs):
    """With every pair of one image nothing is left to push apart, so that the loss only pulls."""
    labels = torch.zeros(9, dtype=torch.long)
    for mask_same_image in (True, False):
        for name in ("triplet", "ntxent"):
            loss = MetricLoss(settings_of(name, mask_same_image=mask_same_image))
            assert loss(*pairs, labels) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reducer", [None, "mean", "sum", "nonzero"])
def test_a_loss_waits_for_the_device_unless_it_reduces_all_values(name, reducer):
    """By the reducer that the library has taken, its default too; miners wait in any case."""
    loss = MetricLoss(settings_of(name, reducer=reducer))
    taken = loss.loss.reducer
    taken = taken.reducers.values() if isinstance(taken, reducers.MultipleReducers) else [taken]
    assert loss.waits == (not all(isinstance(one, reducers.MeanReducer | reducers.SumReducer) for one in taken))
    assert MetricLoss(settings_of(name, reducer="mean", miner="multisimilarity")).waits
