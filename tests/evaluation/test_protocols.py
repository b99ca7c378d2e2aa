"""Whole protocols: the published fixture, four published models' rank files, folds, constant scores, memory."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.evaluation import protocols, relevance
from crossmodal.evaluation.metrics import summarise
from crossmodal.evaluation.protocols import all_metrics, extra_metrics, fold_metrics
from crossmodal.evaluation.ranking import Pairs, rank_both_ways

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests/reference/fixtures/metrics.npz"
RANKS = Path(os.environ.get("RANKS_DIR", ROOT.parent / "shared" / "ranks"))
FIVE = ("r1", "r5", "r10", "medr", "meanr")
# R@1, R@5, R@10, median and mean rank both ways, as published beside the rank files.
PUBLISHED = {
    "gsmn_f30k": ([74.30, 91.60, 95.30, 1, 3.43], [54.12, 79.94, 86.58, 1, 9.43]),
    "vsrn_f30k": ([71.50, 90.80, 95.50, 1, 3.79], [54.74, 80.92, 87.70, 1, 8.73]),
    "jwae_coco1k": ([61.10, 91.40, 96.90, 1, 2.65], [45.08, 80.18, 89.58, 2, 7.18]),
    "chain_vse_coco5k": ([39.64, 69.42, 80.90, 2, 11.21], [30.88, 60.70, 73.52, 3, 24.14]),
}


def with_ranks(i2t, t2i):
    """Two similarity matrices (N, 5N): the first has these ranks in its rows, the second in its columns.

    The right item scores 2, as many wrong ones as its rank says score 3, and the rest 0.
    """
    images, captions = len(i2t), len(t2i)
    owners = np.arange(captions) // 5
    rows, columns = np.zeros((images, captions), np.float32), np.zeros((images, captions), np.float32)
    for image, rank in enumerate(i2t):
        others = np.flatnonzero(owners != image)
        rows[image, others[:rank]] = 3
        rows[image, 5 * image] = 2
    for caption, rank in enumerate(t2i):
        others = np.flatnonzero(np.arange(images) != owners[caption])
        columns[others[:rank], caption] = 3
        columns[owners[caption], caption] = 2
    return rows, columns


@pytest.mark.parametrize("name", PUBLISHED)
def test_rank_files_of_published_models(name):
    path = RANKS / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with np.load(path, allow_pickle=False) as file:
        ranks = {direction: file[f"{direction}_ranks"].astype(np.int64) for direction in ("i2t", "t2i")}
    for direction, published in zip(("i2t", "t2i"), PUBLISHED[name], strict=True):
        np.testing.assert_allclose(list(summarise(ranks[direction]).values()), published, atol=0.00501)
    if len(ranks["i2t"]) > 1000:
        return  # the matrix takes a minute to build
    pairs = Pairs.of_captions(np.arange(len(ranks["t2i"])) // 5)
    for matrix, direction in zip(with_ranks(ranks["i2t"], ranks["t2i"]), ("i2t", "t2i"), strict=True):
        metrics = all_metrics(matrix, pairs)[direction]
        assert [metrics[key] for key in FIVE] == list(summarise(ranks[direction]).values())
        assert metrics["mrr"] == pytest.approx(np.mean(1 / (ranks[direction] + 1)))


def test_published_fixture():
    data = dict(np.load(FIXTURE))
    pairs = Pairs.of_captions(np.arange(data["similarity"].shape[1]) // 5)
    metrics = all_metrics(data["similarity"], pairs, data["relevance"])
    for direction in ("i2t", "t2i"):
        ours = metrics[direction]
        np.testing.assert_allclose([ours[key] for key in FIVE], data[direction], atol=1e-5)
        assert ours["ndcg25"] == pytest.approx(data[f"ndcg25_{direction}"].mean(), abs=1e-5)
        names = {"nn": "NN", "ft": "FT", "st": "ST", "map10": "MAP@10", "f1_10": "F1@10"}
        names |= {f"r{k}": f"R@{k}" for k in (1, 5, 10)}
        for key, name in names.items():
            assert ours[f"kaylode_{key}"] == pytest.approx(float(data[f"seed_{direction}_{name}"]), abs=1e-5), name
    recalls = [metrics[direction][key] for direction in ("i2t", "t2i") for key in FIVE[:3]]
    assert metrics["rsum"] == pytest.approx(sum(recalls))


def test_constant_scores_are_no_better_than_chance():
    pairs = Pairs.of_captions(np.arange(500) // 5)
    metrics = all_metrics(np.full((100, 500), 0.5), pairs)
    assert metrics["rsum"] == 0
    assert metrics["i2t"]["map"] < 0.011  # captions from place 495 on
    assert metrics["t2i"]["mrr"] == pytest.approx(1 / 100)


def test_folds_are_consecutive_images_searched_for_themselves():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, 20)
    owners = np.repeat(np.arange(20), counts)
    similarity, graded = rng.normal(size=(20, len(owners))), rng.random((len(owners), 20))
    metrics = fold_metrics(similarity, Pairs.of_captions(owners), 4, graded)
    folds = []
    for fold in range(4):
        images, captions = slice(5 * fold, 5 * fold + 5), owners // 5 == fold
        part = similarity[images][:, captions]
        folds.append(all_metrics(part, Pairs.of_captions(owners[captions] - 5 * fold), graded[captions][:, images]))
    for direction in ("i2t", "t2i"):
        for name, value in metrics[direction].items():
            assert value == pytest.approx(np.mean([fold[direction][name] for fold in folds])), name
    assert metrics["rsum"] == pytest.approx(np.mean([fold["rsum"] for fold in folds]))
    assert (metrics["images"], metrics["captions"], metrics["folds"]) == (20, len(owners), 4)


def test_captions_in_any_order_fall_into_the_fold_of_their_image():
    rng = np.random.default_rng(1)
    owners, order = np.arange(30) // 3, rng.permutation(30)
    similarity = rng.normal(size=(10, 30))
    graded = rng.random((30, 10))
    straight = fold_metrics(similarity, Pairs.of_captions(owners), 5, graded)
    mixed = fold_metrics(similarity[:, order], Pairs.of_captions(owners[order]), 5, graded[order])
    assert straight["rsum"] == mixed["rsum"]
    assert straight["t2i"]["ndcg25"] == pytest.approx(mixed["t2i"]["ndcg25"])


@pytest.mark.parametrize(
    ("pairs", "folds", "named"),
    [
        (Pairs.of_captions(np.arange(10)), 3, ("folds 3", "10 images")),
        (
            Pairs(np.array([0, 9, 4]), np.array([0, 0, 1])),
            2,
            ("folds 2", "fold 0", "belongs"),
        ),
        (Pairs(np.array([0]), np.array([0])), 2, ("folds 2", "fold 1", "no image")),
    ],
)
def test_folds_that_cannot_be(pairs, folds, named):
    with raises_naming(*named):
        fold_metrics(np.random.default_rng(0).random((10, 10)), pairs, folds)


@pytest.mark.parametrize(("images", "folds", "noted"), [(200, 5, False), (199, None, True), (190, None, False)])
def test_folds_of_coco_with_an_image_left_out(monkeypatch, capsys, images, folds, noted):
    """The split counts as COCO's by its size, here of 200 images in place of 5,000."""
    monkeypatch.setattr(protocols, "COCO_IMAGES", 200)
    similarity, owners = np.random.default_rng(0).random((images, 2 * images)), np.arange(2 * images) // 2
    rankings = rank_both_ways(similarity, Pairs.of_captions(owners))
    metrics = extra_metrics(rankings, similarity, owners, None, None)
    assert metrics.get("folds", {}).get("folds") == folds
    note = f"warning: evaluate.folds null: no folds of {images} images, COCO's 1K takes 200\n"
    assert capsys.readouterr().err == (note if noted else "")


def test_memory_is_that_of_blocks(monkeypatch):
    monkeypatch.setattr(relevance, "_BLOCK_BYTES", 1 << 18)
    rng = np.random.default_rng(0)
    similarity, graded = rng.random((600, 3000), dtype=np.float32), rng.random((3000, 600), dtype=np.float32)
    tracemalloc.start()
    all_metrics(similarity, Pairs.of_captions(np.arange(3000) // 5), graded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < similarity.nbytes / 2


def test_named_metrics_are_those_of_all():
    rng = np.random.default_rng(0)
    owners, similarity = np.repeat(np.arange(20), 3), rng.random((20, 60))
    graded, pairs = rng.random((60, 20)), Pairs.of_captions(owners)
    metrics = all_metrics(similarity, pairs, graded)
    means = fold_metrics(similarity, pairs, 4, graded)
    extra = extra_metrics(rank_both_ways(similarity, pairs), similarity, owners, graded, 4)
    for way in ("i2t", "t2i"):
        assert extra[way] == {name: metrics[way][name] for name in ("mrr", "map", "ndcg25")}
        names = ("r1", "r5", "r10", "medr", "meanr", "mrr", "map", "ndcg25")
        assert extra["folds"][way] == {name: means[way][name] for name in names}
    assert (extra["folds"]["rsum"], extra["folds"]["folds"]) == (means["rsum"], 4)
