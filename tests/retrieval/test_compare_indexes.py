"""Comparing indexes: made-up embeddings, saved ones, and what follows from a table."""

import re

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.retrieval.compare_indexes import (
    Row,
    compare_indexes,
    read_embeddings,
    recommend,
    split_queries,
    synthetic_embeddings,
    usual_kinds,
)
from crossmodal.retrieval.index import IndexKind, IndexMeasures


def test_made_up_embeddings_are_clustered_unit_vectors():
    vectors = synthetic_embeddings(3000, 32, seed=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, synthetic_embeddings(3000, 32, seed=1))
    queries = synthetic_embeddings(20, 32, seed=2)
    noise = np.random.default_rng(0).normal(size=(3000, 32))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    nearest = {name: np.sort(queries @ base.T, axis=1)[:, -10:].mean() for name, base in (("v", vectors), ("n", noise))}
    assert nearest["v"] > nearest["n"] + 0.1


@pytest.mark.parametrize(("count", "dim"), [(300, 64), (300, 50), (300, 25), (40, 8)])
def test_the_usual_kinds_can_be_made(count, dim):
    vectors, queries = synthetic_embeddings(count, dim, seed=1), synthetic_embeddings(10, dim, seed=2)
    slow = r"IVF\d+,PQ\d+$"  # 256 centroids take long to fit
    kinds = [kind for kind in usual_kinds(count, dim) if not re.match(slow, kind.factory)]
    rows = list(compare_indexes(vectors, queries, kinds, 10))
    assert [row.kind for row in rows] == kinds
    assert rows[0].measures.recall == 1
    assert all(row.measures.recall > 0.2 and row.build_seconds > 0 for row in rows)


@pytest.mark.parametrize(
    ("factory", "few", "many"),
    [("HNSW8", "efSearch=10", "efSearch=300"), ("PQ8x4fs,RFlat", "k_factor_rf=1", "k_factor_rf=20")],
)
def test_settings_of_the_search_act_at_the_depth_that_is_asked_for(factory, few, many):
    """Asked for the whole gallery, an index would find all of it whatever they are."""
    vectors, queries = synthetic_embeddings(2000, 32, seed=1), synthetic_embeddings(100, 32, seed=2)
    kinds = [IndexKind(factory, search=search) for search in (few, many)]
    low, high = (row.measures.recall for row in compare_indexes(vectors, queries, kinds, 10))
    assert low < high - 0.02 and high > 0.95


def test_codes_divide_the_vector():
    kinds = {dim: " ".join(kind.factory for kind in usual_kinds(1_000_000, dim)) for dim in (256, 100, 7)}
    assert "IVF1024,PQ32 IVF1024,PQ64x4fs,Refine(SQ8)" in kinds[256]
    assert "IVF1024,PQ25 IVF1024,PQ50x4fs,Refine(SQ8)" in kinds[100]
    assert "IVF1024,PQ7 IVF1024,PQ7x4fs,Refine(SQ8)" in kinds[7]


def row(factory, recall, speed, size):
    return Row(IndexKind(factory), 1.0, IndexMeasures(recall, size, speed))


def test_what_is_recommended():
    rows = [
        row("Flat", 1.0, 10, 1024),
        row("HNSW32", 0.96, 900, 1296),
        row("IVF64,Flat", 0.97, 700, 1030),
        row("IVF64,PQ32", 0.9, 2000, 40),
        row("PQ8", 0.3, 5000, 8),
    ]
    exact, fast, small = recommend(rows)
    assert "Flat, 10 queries/s" in exact
    assert "HNSW32, recall 0.960, 900 queries/s" in fast
    assert "IVF64,PQ32, recall 0.900" in small
    assert "40 bytes" in small
    assert recommend(rows[-1:]) == []


def test_saved_embeddings_are_normalised_and_give_up_their_queries(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(50, 8)) * 3
    np.save(tmp_path / "e.npy", matrix)
    unit = read_embeddings(tmp_path / "e.npy")
    np.testing.assert_allclose(unit, matrix / np.linalg.norm(matrix, axis=1, keepdims=True), rtol=1e-5)
    vectors, queries = split_queries(unit, 10)
    assert (len(vectors), len(queries)) == (40, 10)
    assert {tuple(line) for line in np.concatenate([vectors, queries])} == {tuple(line) for line in unit}
    assert len(split_queries(unit, 10**6)[1]) == 25


@pytest.mark.parametrize("scale", [1, 12])
def test_float16_is_summed_as_more(tmp_path, scale):
    """Rows whose sum of squares is beyond float16, or loses digits in it."""
    matrix = (scale * np.random.default_rng(0).normal(size=(20, 768))).astype(np.float16)
    np.save(tmp_path / "half.npy", matrix)
    exact = matrix.astype(np.float64)
    expected = exact / np.sqrt((exact**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(read_embeddings(tmp_path / "half.npy"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"text", ("not readable",)),
        (np.zeros(5), ("float64", "(5,)", "matrix")),
        (np.zeros((5, 3)), ("zeros", "finite")),
        (np.array([[object()]] * 5), ("not readable",)),
    ],
)
def test_what_is_no_matrix_is_named(tmp_path, content, named):
    path = tmp_path / "e.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with raises_naming(path, *named):
        read_embeddings(path)
