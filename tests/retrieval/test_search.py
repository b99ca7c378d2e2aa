"""FAISS search both ways against the similarity matrix."""

import tracemalloc

import faiss
import numpy as np
import pytest

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.metrics import i2t_ranks, summarise, t2i_ranks
from crossmodal.files.checked_arrays import load_arrays, save_arrays
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.results import (
    SearchResults,
    build_indexes,
    draw_sample,
    rank_pairs,
    search_both_ways,
    summary,
)
from tests.assertions import raises_naming


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    caption_image = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    images = rng.normal(size=(60, 16)).astype(np.float32)
    captions = images[caption_image] + 1.5 * rng.normal(size=(len(caption_image), 16)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    return images, captions, Split(np.arange(60), np.arange(len(caption_image)), caption_image)


def searched_with(embeddings, folder, factory):
    images, captions, split = embeddings
    indexes = build_indexes(images, captions, IndexKind(factory), folder)
    return search_both_ways(indexes, split, draw_sample(split, 50), top_k=7)


def search_with(embeddings, folder, factory):
    return searched_with(embeddings, folder, factory).results


def test_exact_search_has_the_ranks_of_the_matrix(tmp_path, embeddings):
    images, captions, split = embeddings
    results = search_with(embeddings, tmp_path, "Flat")
    similarity = images @ captions.T
    np.testing.assert_array_equal(results.i2t_ranks, i2t_ranks(similarity, split.caption_image))
    np.testing.assert_array_equal(results.t2i_ranks, t2i_ranks(similarity, split.caption_image))
    np.testing.assert_array_equal(results.i2t_top, np.argsort(-similarity, axis=1)[:, :7])
    np.testing.assert_allclose(results.t2i_scores, -np.sort(-similarity.T, axis=1)[:, :7], atol=1e-5)


@pytest.fixture(scope="module")
def many():
    """400 images, and 1,200 captions near them."""
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(400), 3)
    images = rng.normal(size=(400, 32))
    captions = images[owners] + 1.2 * rng.normal(size=(1200, 32))
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, captions)]
    return *(side.astype(np.float32) for side in sides), Split(np.arange(400), np.arange(1200), owners)


def recalls_of(many, folder, factory, search="", top_k=7):
    images, captions, split = many
    indexes = build_indexes(images, captions, IndexKind(factory, search=search), folder)
    found = search_both_ways(indexes, split, draw_sample(split, 20), top_k=top_k)
    return found, summary(found.results)


def recalls_by_a_loop(many, folder, k):
    """R@1, R@5, R@10 of the saved indexes, query by query, as somebody who asks for k results gets them."""
    images, captions, split = many
    recalls = {}
    for way, queries, file in (("i2t", images, "captions.faiss"), ("t2i", captions, "images.faiss")):
        index, places = faiss.read_index(str(folder / file)), []
        for number, query in enumerate(queries):
            _, (ids,) = index.search(query[None], k)
            if way == "i2t":
                right = [item >= 0 and split.caption_image[item] == number for item in ids]
            else:
                right = [item == split.caption_image[number] for item in ids]
            places.append(right.index(True) if any(right) else k)
        recalls |= {f"{way}/r{k}": 100 * np.mean(np.array(places) < k) for k in (1, 5, 10)}
    return recalls


@pytest.mark.parametrize(
    ("factory", "bad", "good"),
    [
        ("HNSW4", "efSearch=10", "efSearch=300"),
        ("IVF32,Flat", "nprobe=1", "nprobe=16"),
        ("PQ8x4fs,RFlat", "k_factor_rf=1", "k_factor_rf=10"),
    ],
)
@pytest.mark.parametrize("top_k", [3, 15])
def test_recalls_of_an_index_are_those_of_its_own_lists(tmp_path, many, factory, bad, good, top_k):
    exact = recalls_of(many, tmp_path, "Flat")[1]
    found, recalls = {}, {}
    for name, settings in (("bad", bad), ("good", good)):
        found[name], recalls[name] = recalls_of(many, tmp_path, factory, settings, top_k)
        for key, value in recalls_by_a_loop(many, tmp_path, max(top_k, 10)).items():
            way, recall = key.split("/")
            assert recalls[name][way][recall] == pytest.approx(value), key
        for way in ("i2t", "t2i"):  # of all scores, whatever the index
            assert {key: recalls[name][way][key] for key in ("medr", "meanr")} == {
                key: exact[way][key] for key in ("medr", "meanr")
            }
    assert recalls["bad"]["rsum"] < recalls["good"]["rsum"] - 5
    assert recalls["good"]["rsum"] <= exact["rsum"] + 1
    missed = found["bad"].results.t2i_ranks == 400  # not in the list
    assert missed.any() and found["bad"].results.t2i_ranks[~missed].max() < max(top_k, 10)
    assert found["bad"].results.t2i_top.shape == (1200, top_k)


@pytest.mark.parametrize("factory", ["Flat", "IVF1,Flat", "SQ8"])
def test_vectors_that_are_all_alike_find_nothing(tmp_path, many, factory):
    """Ties count against the model, also those that the list cuts off."""
    images, captions, split = many
    same = np.ones_like(images) / np.sqrt(32), np.ones_like(captions) / np.sqrt(32)
    recalls = recalls_of((*same, split), tmp_path, factory)[1]
    assert (recalls["rsum"], recalls["t2i"]["meanr"], recalls["i2t"]["meanr"]) == (0, 400, 1198)


def test_metrics_of_the_flat_index_are_those_of_the_matrix(tmp_path, many):
    images, captions, split = many
    found, metrics = recalls_of(many, tmp_path, "Flat", top_k=3)
    matrix = images @ captions.T
    assert metrics["i2t"] == summarise(i2t_ranks(matrix, split.caption_image))
    assert metrics["t2i"] == summarise(t2i_ranks(matrix, split.caption_image))
    np.testing.assert_array_equal(found.matrix, matrix)


def test_ranking_a_matrix_takes_little_beside_it():
    owners = np.repeat(np.arange(200), 10)
    matrix = np.random.default_rng(0).random((200, 2000), dtype=np.float32)
    split = Split(np.arange(200), np.arange(2000), owners)
    tracemalloc.start()
    try:
        found = rank_pairs(matrix, split, top_k=5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found.results.t2i_top, np.argsort(-matrix.T, axis=1)[:, :5])
    np.testing.assert_array_equal(found.results.t2i_ranks, t2i_ranks(matrix, owners))
    assert peak < 0.75 * matrix.nbytes  # the whole order of every row would be twice the matrix


def test_figures_do_not_depend_on_the_clock(tmp_path, embeddings):
    first, second = (searched_with(embeddings, tmp_path, "IVF4,SQ8") for _ in range(2))
    assert first.figures == second.figures
    assert 0.3 < first.figures["t2i"]["recall_against_flat"] < 1
    assert searched_with(embeddings, tmp_path, "Flat").figures["i2t"]["recall_against_flat"] == 1
    assert set(first.timings) == {"build_seconds", "i2t/queries_per_second", "t2i/queries_per_second"}


def test_a_sample_holds_every_query_once_and_is_the_same_again(embeddings):
    split = embeddings[2]
    sample = draw_sample(split, 40)
    assert len(set(sample.images)) == len(set(sample.captions)) == 40
    np.testing.assert_array_equal(sample.captions, draw_sample(split, 40).captions)
    np.testing.assert_array_equal(draw_sample(split, 10**6).captions, split.captions)


def test_round_trip(tmp_path, embeddings):
    results = search_with(embeddings, tmp_path, "Flat")
    path = tmp_path / "results.npz"
    save_arrays(results, path)
    for name, value in vars(load_arrays(SearchResults, path)).items():
        np.testing.assert_array_equal(value, getattr(results, name))
    first = path.read_bytes()
    save_arrays(results, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_unreadable_results_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "results.npz").write_bytes(content)
    with raises_naming("results.npz"):
        load_arrays(SearchResults, tmp_path / "results.npz")
