"""Ranks of all relevant items and the metrics made of them, against slow loops and independent libraries."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from crossmodal.evaluation import binary
from crossmodal.evaluation.ranking import Pairs, rank_both_ways


def many_to_many(seed, images=12, captions=30, scores=6, share=0.15):
    """Scores with many ties, images and captions in any number of pairs, some in none."""
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, scores, (images, captions)).astype(np.float32)
    relevant = rng.random((images, captions)) < share
    relevant[0, 0] = True
    return similarity, relevant


def loop_ranks(scores, right):
    """Ranks of right items when every wrong item that ties stands before them, right ones in a row."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], right[item]))
    return [place for place, item in enumerate(order) if right[item]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 6, 1000]), st.sampled_from([0.02, 0.15, 0.9]))
def test_ranks_against_a_loop(seed, scores, share):
    similarity, relevant = many_to_many(seed, scores=scores, share=share)
    both = rank_both_ways(similarity, Pairs(*np.nonzero(relevant)))
    for ranking, matrix, right in zip(both, (similarity, similarity.T), (relevant, relevant.T), strict=True):
        queries = np.flatnonzero(right.any(axis=1))
        assert ranking.row.tolist() == queries.tolist()
        assert ranking.gallery == matrix.shape[1]
        for number, query in enumerate(queries):
            mine = ranking.query == number
            assert ranking.rank[mine].tolist() == loop_ranks(matrix[query], right[query])
            assert ranking.position[mine].tolist() == list(range(right[query].sum()))
            assert ranking.total[number] == right[query].sum()


def test_captions_beyond_one_block():
    similarity, relevant = many_to_many(0, images=5, captions=600, scores=1000, share=0.3)
    _, t2i = rank_both_ways(similarity, Pairs(*np.nonzero(relevant)))
    for number, caption in enumerate(t2i.row):
        assert t2i.rank[t2i.query == number].tolist() == loop_ranks(similarity[:, caption], relevant[:, caption])


def test_matrices_of_many_rows_are_counted_whole():
    """More rows than a count of a byte takes: every score ties."""
    _, t2i = rank_both_ways(np.zeros((700, 700)), Pairs.of_captions(np.arange(700)))
    assert (t2i.rank == 699).all()


@pytest.fixture
def untied():
    rng = np.random.default_rng(5)
    relevant = rng.random((40, 120)) < 0.05
    relevant[:, 0] = True
    similarity = rng.permutation(40 * 120).reshape(40, 120).astype(np.float64)
    ranking, _ = rank_both_ways(similarity, Pairs(*np.nonzero(relevant)))
    return similarity, relevant, ranking


def test_metrics_are_those_of_an_independent_library(untied):
    similarity, relevant, ranking = untied
    qrels = [ir_measures.Qrel(str(q), str(i), 1) for q, i in zip(*np.nonzero(relevant), strict=True)]
    run = [ir_measures.ScoredDoc(str(q), str(i), similarity[q, i]) for q in range(40) for i in range(120)]
    expected = {
        ir_measures.RR: binary.reciprocal_rank(ranking),
        ir_measures.AP: binary.average_precision(ranking),
        ir_measures.AP @ 10: binary.average_precision(ranking, 10),
        ir_measures.Rprec: binary.first_tier(ranking),
        ir_measures.nDCG: binary.ndcg(ranking, 120),
    }
    for k in (1, 5, 10, 50):
        expected[ir_measures.P @ k] = binary.precision(ranking, k)
        expected[ir_measures.R @ k] = binary.recall(ranking, k)
        expected[ir_measures.nDCG @ k] = binary.ndcg(ranking, k)
        expected[ir_measures.Success @ k] = binary.hits(ranking, k) > 0
    for measure in ir_measures.iter_calc(list(expected), qrels, run):
        assert expected[measure.measure][int(measure.query_id)] == pytest.approx(measure.value), measure


def test_ndcg_of_scikit_learn(untied):
    similarity, relevant, ranking = untied
    assert binary.ndcg(ranking, 10).mean() == pytest.approx(ndcg_score(relevant, similarity, k=10))


def test_by_hand():
    """Relevant items at ranks 0, 2 and 5 of eight."""
    similarity = np.array([[8.0, 7, 6, 5, 4, 3, 2, 1]])
    ranking, _ = rank_both_ways(similarity, Pairs(np.zeros(3, int), np.array([0, 2, 5])))
    assert binary.precision(ranking, 4) == 0.5
    assert binary.recall(ranking, 4) == pytest.approx(2 / 3)
    assert binary.f1(ranking, 4) == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert binary.average_precision(ranking) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert binary.average_precision(ranking, 4) == pytest.approx((1 + 2 / 3) / 3)
    assert binary.average_precision(ranking, ranking.total) == pytest.approx((1 + 2 / 3) / 3)
    assert binary.first_tier(ranking) == pytest.approx(2 / 3)
    assert binary.second_tier(ranking) == 1
    assert binary.dcg(ranking, 8) == pytest.approx(1 + 1 / np.log2(4) + 1 / np.log2(7))
    assert binary.ndcg(ranking, 8) == pytest.approx((1.5 + 1 / np.log2(7)) / (1.5 + 1 / np.log2(3)))
