"""Intervals and p-values against a plain resampling loop, and what must hold of them."""

import numpy as np
import pytest

from crossmodal.evaluation.metrics import retrieval_metrics
from crossmodal.evaluation.significance import Run, compare, read_run


def random_run(seed, images=60, best=3.0):
    """Ranks of images with one to four captions each; images are of unequal difficulty, shared by their captions."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(images), np.random.default_rng(0).integers(1, 5, images))
    hard = rng.gamma(2, best, images)
    return Run(rng.poisson(hard), rng.poisson(hard[owners]), owners)


@pytest.fixture(scope="module")
def runs():
    return random_run(1), random_run(2, best=2.0)


@pytest.fixture(scope="module")
def figures(runs):
    return {figure.name: figure for figure in compare(*runs)}


def test_values_are_the_metrics(runs, figures):
    for side, run in zip(("a", "b"), runs, strict=True):
        metrics = retrieval_metrics(run.i2t, run.t2i)
        for name, figure in figures.items():
            direction, _, key = name.rpartition("/")
            if key != "mrr":
                expected = metrics[direction][key] if direction else metrics[key]
                assert getattr(figure, side) == pytest.approx(expected), name
        assert getattr(figures["t2i/mrr"], side) == pytest.approx(np.mean(1 / (run.t2i + 1)))
    for figure in figures.values():
        assert figure.difference == pytest.approx(figure.b - figure.a)


def test_intervals_of_a_plain_bootstrap_over_images(runs, figures):
    """Images are drawn with replacement, their captions with them; captions of a draw count as in the whole set."""
    a, b = runs
    rng, count = np.random.default_rng(7), len(a.i2t)
    captions = [np.flatnonzero(a.caption_image == image) for image in range(count)]
    draws = []
    for _ in range(4000):
        images = rng.integers(0, count, count)
        texts = np.concatenate([captions[image] for image in images])
        draws.append([100 * np.sum(run.t2i[texts] < 5) / len(run.t2i) for run in (a, b)])
    draws = np.array(draws)
    figure = figures["t2i/r5"]
    for interval, values in (
        (figure.a_interval, draws[:, 0]),
        (figure.b_interval, draws[:, 1]),
        (figure.difference_interval, draws[:, 1] - draws[:, 0]),
    ):
        np.testing.assert_allclose(interval, np.percentile(values, [2.5, 97.5]), atol=1.5)


def test_p_of_a_plain_permutation_of_images(runs, figures):
    a, b = runs
    rng = np.random.default_rng(8)
    seen = abs(np.mean(b.i2t) - np.mean(a.i2t))
    larger = 0
    for _ in range(4000):
        swap = rng.random(len(a.i2t)) < 0.5
        larger += abs(np.mean(np.where(swap, a.i2t, b.i2t)) - np.mean(np.where(swap, b.i2t, a.i2t))) >= seen
    assert figures["i2t/meanr"].p == pytest.approx(larger / 4000, abs=0.03)


def test_the_same_run_twice_is_no_difference(runs):
    for figure in compare(runs[0], runs[0], resamples=99):
        assert figure.difference == 0
        assert figure.difference_interval == (0, 0)
        assert figure.p == 1


def test_a_run_that_is_far_better_differs():
    worse = random_run(3, best=8.0)
    better = Run(worse.i2t // 4, worse.t2i // 4, worse.caption_image)
    figures = {figure.name: figure for figure in compare(worse, better, resamples=999)}
    assert figures["rsum"].p < 0.01
    assert figures["rsum"].difference_interval[0] > 0


def test_recalls_of_an_index_and_mean_ranks_of_all_scores(tmp_path):
    run = random_run(4)
    lists = [np.where(ranks < 5, ranks, 60) for ranks in (run.i2t, run.t2i)]  # of an index that finds five
    np.savez(
        tmp_path / "results.npz",
        i2t_ranks=lists[0],
        t2i_ranks=lists[1],
        caption_image=run.caption_image,
        i2t_exact_ranks=run.i2t,
        t2i_exact_ranks=run.t2i,
    )
    found = {figure.name: figure.a for figure in compare(read_run(tmp_path, 5), run, resamples=9)}
    exact = {figure.name: figure.a for figure in compare(run, run, resamples=9)}
    for way, ranks in (("i2t", lists[0]), ("t2i", lists[1])):
        assert found[f"{way}/r10"] == pytest.approx(100 * np.mean(ranks < 10))
        assert found[f"{way}/r10"] < exact[f"{way}/r10"]
        for name in ("meanr", "mrr"):
            assert found[f"{way}/{name}"] == exact[f"{way}/{name}"]


def test_p_is_as_often_small_as_chance_has_it():
    """Of runs that differ by chance alone one in five has a p below 0.2."""
    p = [compare(random_run(seed), random_run(seed + 1000), resamples=199)[1].p for seed in range(100)]
    assert 0.08 < np.mean(np.array(p) < 0.2) < 0.35
