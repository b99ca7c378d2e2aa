"""Indexes against brute force in NumPy."""

import faiss
import numpy as np
import pytest

from crossmodal.retrieval.index import IndexKind, build_index, measure_index, read_index, search
from tests.assertions import raises_naming

FLAT = IndexKind("Flat")


def unit(shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_both_metrics_give_cosines_in_their_order():
    vectors, queries = unit((60, 16)), unit((5, 16), seed=1)
    cosines = queries @ vectors.T
    for metric in ("inner_product", "l2"):
        scores, found = search(build_index(vectors, IndexKind("Flat", metric)), queries, 7)
        np.testing.assert_array_equal(found, np.argsort(-cosines, axis=1)[:, :7])
        np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :7], atol=1e-5)


def test_more_results_than_there_are_items():
    scores, found = search(build_index(unit((4, 8)), FLAT), unit((2, 8)), 9)
    assert scores.shape == found.shape == (2, 4)


def test_search_settings_reach_the_index_and_are_saved_with_it(tmp_path):
    vectors = unit((400, 16))
    kinds = [IndexKind("IVF16,Flat", search=search) for search in ("", "nprobe=16")]
    few, all_lists = (measure_index(build_index(vectors, kind), vectors, vectors, 10).recall for kind in kinds)
    assert few < 0.9
    assert all_lists == 1
    faiss.write_index(build_index(vectors, kinds[1]), str(tmp_path / "index"))
    assert read_index(tmp_path / "index").nprobe == 16


def test_measures_against_brute_force():
    vectors, queries = unit((300, 16)), unit((40, 16), seed=1)
    index = build_index(vectors, IndexKind("PQ4x4"))
    measures = measure_index(index, vectors, queries, 10)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    _, found = index.search(queries, 10)
    shared = [len(set(ours) & set(theirs)) for ours, theirs in zip(found.tolist(), exact.tolist(), strict=True)]
    assert measures.recall == pytest.approx(np.mean(shared) / 10)
    assert measures.queries_per_second > 0
    # 4 codes of 4 bits, and a codebook of 16 centroids of 16 floats shared by all
    assert 2 + 16 * 16 * 4 / 300 <= measures.bytes_per_vector < 2 + 16 * 16 * 4 / 300 + 1


@pytest.mark.parametrize("factory", ["HNSW8", "NSG8", "IVF8,PQ4x4", "SQ8"])
def test_the_same_embeddings_give_the_same_bytes(factory):
    vectors = unit((3000, 16))
    first, second = (faiss.serialize_index(build_index(vectors, IndexKind(factory))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_unprobed_item_is_not_found():
    images = np.eye(16, dtype=np.float32).repeat(8, axis=0)
    scores, found = search(build_index(images, IndexKind("IVF16,Flat")), images[:1], 128)
    assert (found == -1).any()
    assert scores.shape == found.shape == (1, 128)


@pytest.mark.parametrize("factory", ["Flatt", "IVF4096,Flat", "PQ5", "IDMap,Flat"])
def test_an_impossible_index_is_named(factory):
    with raises_naming(f"'{factory}'", "60", "16"):
        build_index(unit((60, 16)), IndexKind(factory))


@pytest.mark.parametrize("settings", ["nprobe=4", "nprobe", "efSearch=many"])
def test_a_search_setting_that_the_index_lacks_is_named(settings):
    with raises_naming("evaluate.search", "'Flat'"):
        build_index(unit((60, 16)), IndexKind("Flat", search=settings))


@pytest.mark.parametrize("content", [None, b"", b"no index"])
def test_an_unreadable_index_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "images.faiss").write_bytes(content)
    with raises_naming("images.faiss"):
        read_index(tmp_path / "images.faiss")
