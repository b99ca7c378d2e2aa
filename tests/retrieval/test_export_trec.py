"""``crossmodal export --format trec``, checked by ir_measures against metrics.json."""

import json

import ir_measures
import pytest
from ir_measures import Success


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_success_is_recall(workspace, run, name):
    folder = workspace(name)
    code, out, _ = run("export", "--format", "trec", folder / "runs")
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    assert code == 0 and "t2i.qrels 16 lines" in out
    for way in ("i2t", "t2i"):
        qrels = list(ir_measures.read_trec_qrels(str(folder / f"runs/{way}.qrels")))
        found = ir_measures.read_trec_run(str(folder / f"runs/{way}.run"))
        values = ir_measures.calc_aggregate([Success @ 1, Success @ 5, Success @ 10], qrels, found)
        assert {f"r{measure['cutoff']}": 100 * value for measure, value in values.items()} == pytest.approx(
            {key: metrics[way][key] for key in ("r1", "r5", "r10")}
        )
    lines = (folder / "runs/i2t.qrels").read_text().splitlines()
    assert lines[:3] == ["red 0 red#0 1", "red 0 red#1 1", "lime 0 lime#0 1"]
    assert (folder / "runs/t2i.run").read_text().split()[5] == name
    again = run("export", "--format", "trec", folder / "runs")
    assert again[0] == 2 and "already there" in again[2]


def test_results_of_another_dataset(workspace, run):
    folder = workspace("vsepp")
    records = (folder / "data/dataset/records.jsonl").read_text().splitlines(keepends=True)
    (folder / "data/dataset/records.jsonl").write_text("".join(records[:-1]))
    code, _, error = run("export", "--format", "trec", folder / "runs")
    assert code == 2 and "run the evaluate stage again" in error
