"""``crossmodal export --format clip_benchmark``: layout and values of the file that CLIP_benchmark writes."""

import json

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.evaluation.clip_benchmark import clip_benchmark_record


def recall_as_clip_benchmark_counts_it(scores, positive, k):
    """Share of the rows of (queries, items) that have a positive item among the first k."""
    top = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(positive, top, axis=1).any(axis=1).mean()


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_recalls_are_those_of_metrics_json(workspace, run, name):
    folder = workspace(name)
    code, out, _ = run("export", "--format", "clip_benchmark", folder / "out/run.json")
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    record = json.loads((folder / "out/run.json").read_text())
    assert code == 0 and "6 recalls" in out
    recalls = record.pop("metrics")
    expected = {"dataset": "colours", "model": name, "pretrained": f"key of {name}", "task": "zeroshot_retrieval"}
    assert record == {**expected, "language": "en"}
    assert list(recalls)[:2] == ["image_retrieval_recall@1", "text_retrieval_recall@1"]
    for k in (1, 5, 10):
        assert recalls[f"image_retrieval_recall@{k}"] == metrics["t2i"][f"r{k}"] / 100
        assert recalls[f"text_retrieval_recall@{k}"] == metrics["i2t"][f"r{k}"] / 100
    again = run("export", "--format", "clip_benchmark", folder / "out/run.json")
    assert again[0] == 2 and "already there" in again[2]


def test_recalls_are_what_its_own_counting_gives(workspace, run):
    folder = workspace("scan")
    run("export", "--format", "clip_benchmark", folder / "run.json")
    recalls = json.loads((folder / "run.json").read_text())["metrics"]
    scores = np.load(folder / "results/evaluation/similarity.npy")  # images x captions
    positive = np.repeat(np.eye(8, dtype=bool), 2, axis=1)
    for k in (1, 5):
        texts = recall_as_clip_benchmark_counts_it(scores, positive, k)
        images = recall_as_clip_benchmark_counts_it(scores.T, positive.T, k)
        assert recalls[f"text_retrieval_recall@{k}"] == pytest.approx(texts)
        assert recalls[f"image_retrieval_recall@{k}"] == pytest.approx(images)


def test_coco_has_the_name_that_clip_benchmark_gives_it(tmp_path):
    metrics = {way: {"r1": 1.0, "r5": 2, "r10": 3.0} for way in ("i2t", "t2i")}
    record = clip_benchmark_record(metrics, tmp_path, dataset="coco", model="m", pretrained="p")
    assert record["dataset"] == "mscoco_captions"
    assert record["metrics"]["text_retrieval_recall@5"] == 0.02


@pytest.mark.parametrize(
    ("metrics", "key", "found"),
    [({}, "t2i.r1", None), ({"i2t": 3}, "t2i.r1", None), ({"i2t": {"r1": "x"}, "t2i": {"r1": 1}}, "i2t.r1", "x")],
)
def test_metrics_without_recalls_are_named(tmp_path, metrics, key, found):
    with raises_naming(tmp_path / "metrics.json", f"{key} is {found!r}", "number"):
        clip_benchmark_record(metrics, tmp_path / "metrics.json", dataset="d", model="m", pretrained="p")
