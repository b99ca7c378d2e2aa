"""The three ways to search a split, against all pairs scored."""

import dataclasses
from dataclasses import replace

import faiss
import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.evaluation.metrics import i2t_ranks, summarise, t2i_ranks
from crossmodal.inference.scoring import (
    encode_captions,
    encode_images,
    similarity_matrix,
)
from crossmodal.retrieval.search_split import cost_line, describe, mode_of, search_split

SET_MODELS = ["teran", "scan", "sgraf"]


def all_pairs(material):
    return similarity_matrix(replace(material, batch_size=5))


@pytest.fixture
def settings(params):
    """evaluate's settings with changes."""

    def _settings(**changes):
        return params.evaluate.model_copy(update={"batch_size": 7, "top_k": 4, "exact_queries": 10, **changes})

    return _settings


@pytest.mark.parametrize("name", [*SET_MODELS, "tern"])
def test_a_shortlist_of_everything_is_exact(tmp_path, material, settings, name):
    searched = material(name)
    matrix, owners = all_pairs(searched), searched.split.caption_image
    found = search_split(searched, settings(mode="shortlist_rerank", shortlist=48), tmp_path)
    np.testing.assert_array_equal(found.results.i2t_ranks, i2t_ranks(matrix, owners))
    np.testing.assert_array_equal(found.results.t2i_ranks, t2i_ranks(matrix, owners))
    np.testing.assert_allclose(found.results.t2i_scores, -np.sort(-matrix.T, axis=1)[:, :4], atol=1e-5)
    assert all(value == 0 for part in found.figures.values() for key, value in part.items() if key.startswith("lost"))
    assert found.figures["pairs"] == {"scored": 24 * 48, "of": 24 * 48}


@pytest.mark.parametrize("name", SET_MODELS)
def test_a_shortlist_is_the_nearest_by_mean_vectors_in_the_order_of_the_scores(tmp_path, material, settings, name):
    searched = material(name)
    matrix, split = all_pairs(searched), searched.split
    found = search_split(searched, settings(mode="shortlist_rerank", shortlist=5), tmp_path)
    images = encode_images(searched.model, searched.regions, split.images, 7)
    captions = encode_captions(searched.model, searched.words, split.captions, 7)
    means = [
        np.stack([row[keep].mean(dim=0).numpy() for row, keep in zip(side.vectors, side.mask, strict=True)])
        for side in (images, captions)
    ]
    images, captions = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in means)
    pairs = set()
    for query, place in enumerate(np.argsort(-(captions @ images.T), axis=1)[:, :5]):
        pairs |= {(image, query) for image in place}
        best = place[np.argsort(-matrix[place, query], kind="stable")]
        np.testing.assert_array_equal(found.results.t2i_top[query], best[:4])
        own = split.caption_image[query]
        expected = 24 if own not in place else (matrix[place, query] >= matrix[own, query]).sum() - 1
        assert found.results.t2i_ranks[query] == expected
    for query, place in enumerate(np.argsort(-(images @ captions.T), axis=1)[:, :5]):
        pairs |= {(query, caption) for caption in place}
        best = place[np.argsort(-matrix[query, place], kind="stable")]
        np.testing.assert_array_equal(found.results.i2t_top[query], best[:4])
    assert found.figures["pairs"] == {"scored": len(pairs), "of": 24 * 48}


def test_what_a_shortlist_loses_is_told_by_a_sample(tmp_path, material, settings):
    searched = material("teran")
    matrix, owners = all_pairs(searched), searched.split.caption_image
    found = search_split(searched, settings(mode="shortlist_rerank", shortlist=4, exact_queries=100), tmp_path)
    for name, ranks in (("i2t", i2t_ranks(matrix, owners)), ("t2i", t2i_ranks(matrix, owners))):
        exact, ours = summarise(ranks), summarise(getattr(found.results, f"{name}_ranks"))
        for recall in ("r1", "r5", "r10"):
            assert found.figures[name][f"exact_{recall}"] == pytest.approx(exact[recall])
            assert found.figures[name][f"lost_{recall}"] == pytest.approx(exact[recall] - ours[recall])
    assert found.figures["t2i"]["lost_r10"] > 0
    assert found.timings["shortlist_seconds"] > 0
    assert found.timings["all_pairs_seconds"] > 0


def test_another_matcher_finds_the_shortlist(tmp_path, material, settings):
    searched, finder = material("teran"), material("tern")
    choice = settings(mode="shortlist_rerank", shortlist=4, shortlist_by=str(finder.regions.folder.parent / "tern"))
    found = search_split(searched, choice, tmp_path)
    images, captions = replace(finder, batch_size=7).vectors()
    expected = np.argsort(-(captions @ images.T), axis=1)[:, :4]
    np.testing.assert_array_equal(np.sort(found.results.t2i_top, axis=1), np.sort(expected, axis=1))
    info = describe(searched, choice)
    assert (info.model, info.shortlist_key, info.shortlist_by) == ("teran", "key", choice.shortlist_by)


def test_a_shortlists_matcher_is_described_by_its_config_alone(material, settings):
    searched, finder = material("teran"), material("tern")
    folder = finder.regions.folder.parent / "tern"
    choice = settings(mode="shortlist_rerank", shortlist_by=str(folder))
    (folder / "model.safetensors").unlink()
    assert describe(searched, choice).shortlist_key == "key"


def test_embeddings_and_all_pairs_rank_alike(tmp_path, material, settings):
    searched = material("tern")
    found = [search_split(searched, settings(mode=mode), tmp_path) for mode in ("embeddings", "exact_pairwise")]
    np.testing.assert_array_equal(*(each.results.t2i_ranks for each in found))
    np.testing.assert_array_equal(*(each.results.i2t_ranks for each in found))
    assert np.load(tmp_path / "similarity.npy").shape == (24, 48)
    assert faiss.read_index(str(tmp_path / "images.faiss")).ntotal == 24


def test_auto_goes_by_the_model(material):
    assert mode_of("auto", material("tern").model, "tern") == "embeddings"
    assert mode_of("auto", material("teran").model, "teran") == "exact_pairwise"
    with raises_naming("evaluate.mode embeddings", "teran"):
        mode_of("embeddings", material("teran").model, "teran")


@pytest.mark.parametrize("source", ["nowhere", "teran"])
def test_a_shortlist_that_cannot_be_found_is_named(tmp_path, material, settings, source):
    searched = material("teran")
    folder = searched.regions.folder.parent / source
    with raises_naming(f"evaluate.shortlist_by '{folder}'"):
        search_split(searched, settings(mode="shortlist_rerank", shortlist_by=str(folder)), tmp_path)


@pytest.mark.parametrize("mode", ["embeddings", "exact_pairwise", "shortlist_rerank"])
def test_a_matcher_of_nan_finds_nothing(tmp_path, material, settings, mode):
    """It would find everything: NaN is not below any score."""
    searched = material("tern")
    for parameter in searched.model.parameters():
        parameter.data.fill_(float("nan"))
    with raises_naming("NaN scores", "train.lr"):
        search_split(searched, settings(mode=mode, shortlist=5), tmp_path)


@pytest.mark.parametrize("mode", ["embeddings", "exact_pairwise", "shortlist_rerank"])
def test_the_cost_is_one_line(tmp_path, material, settings, mode):
    searched, choice = material("tern"), settings(mode=mode, shortlist=5)
    line = cost_line(describe(searched, choice), search_split(searched, choice, tmp_path))
    assert "\n" not in line
    assert ("FAISS Flat" in line) == (mode != "exact_pairwise")
    assert ("R@1" in line) == (mode == "shortlist_rerank")


def test_figures_are_the_same_again(tmp_path, material, settings):
    choice = settings(mode="shortlist_rerank", shortlist=6)
    first, second = (search_split(material("scan"), choice, tmp_path) for _ in range(2))
    assert first.figures == second.figures
    for field in dataclasses.fields(first.results):
        np.testing.assert_array_equal(getattr(first.results, field.name), getattr(second.results, field.name))
