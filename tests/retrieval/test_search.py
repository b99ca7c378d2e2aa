"""FAISS search both ways against the similarity matrix."""

import numpy as np
import pytest

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import i2t_ranks, t2i_ranks
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.search import draw_sample, load_results, save_results, search_both_ways, summary


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
    probe, sample = np.zeros((0, 2, 2), dtype=np.float32), draw_sample(split, 50)
    kind = IndexKind(factory)
    return search_both_ways(images, captions, split, probe, kind=kind, top_k=7, sample=sample, folder=folder)


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


@pytest.mark.parametrize("factory", ["IVF4,Flat", "HNSW8", "SQ8"])
def test_approximate_search_is_no_better_than_exact(tmp_path, embeddings, factory):
    exact = summary(search_with(embeddings, tmp_path, "Flat"))["rsum"]
    approximate = summary(search_with(embeddings, tmp_path, factory))["rsum"]
    assert 0 < approximate <= exact + 15  # quantisation may move single ranks either way


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
    save_results(results, tmp_path)
    for name, value in vars(load_results(tmp_path)).items():
        np.testing.assert_array_equal(value, getattr(results, name))
    first = (tmp_path / "results.npz").read_bytes()
    save_results(results, tmp_path)
    assert (tmp_path / "results.npz").read_bytes() == first


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_unreadable_results_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "results.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"results\.npz"):
        load_results(tmp_path)
