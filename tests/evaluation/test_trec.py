"""TREC runs and qrels: against ir_measures, and read back."""

import json

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, R, Success, nDCG

from crossmodal.evaluation.metrics import i2t_ranks, t2i_ranks
from crossmodal.evaluation.trec import Retrieved, read_judged, trec_id, trec_metrics, write_qrels, write_run


def write(folder, similarity, owners, depth):
    """Captions x images from a similarity (N, C): run and qrels of t2i, and the ranks of the full matrix."""
    ranks = t2i_ranks(similarity, owners)
    found = np.argsort(-similarity.T, axis=1, kind="stable")[:, :depth]
    images, captions = [f"i{n}" for n in range(len(similarity))], [f"c{n}" for n in range(len(owners))]
    scores = np.take_along_axis(similarity.T, found, axis=1)
    results = Retrieved(found, scores, found == owners[:, None], ranks)
    write_run(folder / "run", captions, images, results, "tag")
    write_qrels(folder / "qrels", captions, images, enumerate(owners))
    return ranks


def of_ir_measures(folder, *measures):
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels")))
    found = ir_measures.calc_aggregate(measures, qrels, ir_measures.read_trec_run(str(folder / "run")))
    return [found[measure] for measure in measures]


@pytest.mark.parametrize("ties", [False, True])
def test_success_is_the_recall_of_the_matrix(tmp_path, ties):
    rng = np.random.default_rng(0)
    similarity = (rng.integers(0, 6, (30, 90)) if ties else rng.normal(size=(30, 90))).astype(np.float32)
    owners = np.arange(90) // 3
    ranks = write(tmp_path, similarity, owners, 10)
    expected = [np.mean(ranks < k) for k in (1, 5, 10)]
    assert of_ir_measures(tmp_path, Success @ 1, Success @ 5, Success @ 10) == pytest.approx(expected)
    scores = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    for query in {row[0] for row in scores}:
        mine = [np.float32(row[4]) for row in scores if row[0] == query]
        assert (np.diff(mine) < 0).all()
        assert [row[3] for row in scores if row[0] == query] == [str(n + 1) for n in range(len(mine))]


def test_a_run_reads_back_as_ir_measures_has_it(tmp_path, run):
    """Five relevant items a query, whole rankings; ours are in percent where the field has percent."""
    rng = np.random.default_rng(1)
    similarity, owners = rng.normal(size=(12, 60)).astype(np.float32), np.arange(60) // 5
    found = np.argsort(-similarity, axis=1)
    images, captions = [f"i{n}" for n in range(12)], [f"c{n}" for n in range(60)]
    right = owners[found] == np.arange(12)[:, None]
    scores = np.take_along_axis(similarity, found, axis=1)
    ranks = i2t_ranks(similarity, owners)
    write_run(tmp_path / "run", images, captions, Retrieved(found, scores, right, ranks), "tag")
    write_qrels(tmp_path / "qrels", images, captions, ((image, caption) for caption, image in enumerate(owners)))
    code, out, _ = run("score", "--run", tmp_path / "run", "--qrels", tmp_path / "qrels", "--json")
    metrics = json.loads(out)
    assert code == 0 and (metrics["queries"], metrics["items"]) == (12, 60)
    expected = of_ir_measures(tmp_path, Success @ 1, Success @ 5, P @ 5, R @ 10, nDCG @ 10, RR, ir_measures.AP)
    names = ("r1", "r5", "precision5", "recall_all10", "ndcg10", "mrr", "map")
    assert [metrics[name] / (100 if name in ("r1", "r5") else 1) for name in names] == pytest.approx(expected)
    assert metrics["meanr"] == pytest.approx(ranks.mean() + 1)


def test_a_run_that_was_cut_has_the_metrics_of_its_head(tmp_path, run):
    similarity, owners = np.random.default_rng(2).normal(size=(40, 80)).astype(np.float32), np.arange(80) // 2
    ranks = write(tmp_path, similarity, owners, 10)
    metrics = trec_metrics(read_judged(tmp_path / "run", tmp_path / "qrels"))
    assert [metrics[f"r{k}"] for k in (1, 5, 10)] == pytest.approx([100 * np.mean(ranks < k) for k in (1, 5, 10)])
    assert "medr" not in metrics and "map" not in metrics
    assert [metrics["ndcg10"], metrics["recall_all5"]] == pytest.approx(of_ir_measures(tmp_path, nDCG @ 10, R @ 5))
    code, out, _ = run("score", "--run", tmp_path / "run", "--qrels", tmp_path / "qrels")
    assert code == 0 and out.startswith("80 queries, 40 items\n")


def test_ties_count_against_the_model(tmp_path):
    (tmp_path / "qrels").write_text("q 0 right 1\nq 0 other 1\nq 0 bad 0\nabsent 0 right 2\n")
    (tmp_path / "run").write_text(
        "q Q0 right 1 0.5 t\nq Q0 bad 2 0.5 t\nq Q0 other 3 0.25 t\nq Q0 x 4 0.75 t\nunjudged Q0 x 1 1 t\n"
    )
    judged = read_judged(tmp_path / "run", tmp_path / "qrels")
    assert judged.ranking.rank.tolist() == [2, 3, 4]  # of four items the last: what is not there
    assert judged.ranking.total.tolist() == [2, 1] and not judged.complete


def test_names_hold_no_white_space():
    assert trec_id("holiday photos/1\t%.jpg") == "holiday%20photos/1%09%25.jpg"
    assert trec_id("été.jpg") == "été.jpg"


@pytest.mark.parametrize(
    ("run_text", "qrels_text", "message"),
    [
        ("q Q0 a 1 0.5\n", "q 0 a 1\n", "run, line 1: 5 columns, expected 6"),
        ("q Q0 a 1 nan t\n", "q 0 a 1\n", "run, line 1: score 'nan', expected a number"),
        ("q Q0 a 1 1 t\nq Q0 a 2 0.5 t\n", "q 0 a 1\n", "run, line 2: a a second time for q"),
        ("q Q0 a 1 1 t\n", "q 0 a\n", "qrels, line 1: 3 columns, expected 4"),
        ("q Q0 a 1 1 t\n", "q 0 a yes\n", "qrels, line 1: relevance 'yes'"),
        ("q Q0 a 1 1 t\n", "q 0 a 0\n", "qrels: nothing is relevant"),
        ("p Q0 a 1 1 t\n", "q 0 a 1\n", "run: none of the queries"),
    ],
)
def test_bad_files(tmp_path, run, run_text, qrels_text, message):
    (tmp_path / "run").write_text(run_text)
    (tmp_path / "qrels").write_text(qrels_text)
    code, _, error = run("score", "--run", tmp_path / "run", "--qrels", tmp_path / "qrels")
    assert code == 2 and message in error and error.count("\n") <= 2
