"""``crossmodal export --format trec``, checked by ir_measures against metrics.json."""

import json

import ir_measures
import pytest
import torch
from assertions import assert_names
from ir_measures import Success

from crossmodal.datasets.records import read_dataset, write_dataset
from crossmodal.errors import UserError
from crossmodal.features.batches import read_regions, read_words
from crossmodal.retrieval import trec
from crossmodal.retrieval.results import summary
from crossmodal.retrieval.search_split import search_split
from crossmodal.retrieval.trec import export_trec

K = (1, 5, 10)


def successes(folder, way):
    """Success at K by ir_measures, in percent by our names."""
    qrels = list(ir_measures.read_trec_qrels(str(folder / f"{way}.qrels")))
    found = ir_measures.read_trec_run(str(folder / f"{way}.run"))
    values = ir_measures.calc_aggregate([Success @ k for k in K], qrels, found)
    return {f"r{measure['cutoff']}": 100 * value for measure, value in values.items()}


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_success_is_the_recall_of_metrics_json(workspace, run, name):
    folder = workspace(name)
    code, out, _ = run("export", "--format", "trec", folder / "runs")
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    assert code == 0 and "t2i.qrels 16 lines" in out
    for way in ("i2t", "t2i"):
        assert successes(folder / "runs", way) == pytest.approx({f"r{k}": metrics[way][f"r{k}"] for k in K})
    lines = (folder / "runs/i2t.qrels").read_text().splitlines()
    assert lines[:3] == ["red 0 red#0 1", "red 0 red#1 1", "lime 0 lime#0 1"]
    assert (folder / "runs/t2i.run").read_text().split()[5] == name
    again = run("export", "--format", "trec", folder / "runs")
    assert again[0] == 2 and "already there" in again[2]


def train(inputs, steps=3):
    """A few steps of InfoNCE on the images with their first captions."""
    model, split = inputs.model.train(), inputs.split
    regions, words = read_regions(inputs.regions, split.images), read_words(inputs.words, split.captions[::2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        scores = model.similarity(model.encode_regions(regions), model.encode_text(words)) / 0.1
        target = torch.arange(len(scores))
        loss = torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tern", {}),
        ("tern", {"index": "HNSW2", "search": "efSearch=10"}),
        ("sgraf", {}),
        ("sgraf", {"mode": "shortlist_rerank", "shortlist": 12}),
    ],
)
def test_success_of_trained_matchers_however_they_are_searched(material, params, tmp_path, name, changes):
    inputs = material(name)
    for member in inputs.model.members():
        train_inputs = type(inputs)(member, inputs.regions, inputs.words, inputs.split, 7)
        train(train_inputs)
    settings = params.evaluate.model_copy(update={"top_k": 10, **changes})
    results = search_split(inputs, settings, tmp_path).results
    metrics = summary(results)
    export_trec(results, read_dataset(tmp_path / "dataset"), inputs.split, tmp_path / "runs", name)
    for way in ("i2t", "t2i"):
        recalls = {f"r{k}": metrics[way][f"r{k}"] for k in K}
        assert successes(tmp_path / "runs", way) == pytest.approx(recalls)
        assert 0 < recalls["r1"] < 100


def test_results_of_another_dataset(workspace, run):
    """By the gallery's digest, or, where a former version's has none, by the captions."""
    folder = workspace("vsepp")
    dataset = read_dataset(folder / "data/dataset")
    write_dataset(dataset.folder, dataset.name, dataset.records[:-1])
    code, _, error = run("export", "--format", "trec", folder / "runs")
    assert code == 2
    assert_names(error, "results/evaluation", "data/dataset")
    path = folder / "results/evaluation/gallery.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": ""}))
    code, _, error = run("export", "--format", "trec", folder / "runs")
    assert code == 2 and "run the evaluate stage again" in error


def test_runs_that_end_in_an_error_are_not_there(workspace, run, monkeypatch):
    folder = workspace("vsepp")
    real = trec.write_qrels
    monkeypatch.setattr(trec, "write_qrels", full)
    assert run("export", "--format", "trec", "runs")[0] == 2
    assert not (folder / "runs").exists()
    monkeypatch.setattr(trec, "write_qrels", real)
    assert run("export", "--format", "trec", "runs")[0] == 0
    assert not (folder / "runs.part").exists()


def full(*_):
    raise UserError("no space left")


@pytest.mark.parametrize(
    ("kind", "option"),
    [("trec", ("--pad",)), ("hub", ("--pad",)), ("scan", ("--split", "test")), ("trec", ("--split", "val"))],
)
def test_options_of_other_formats_are_refused(workspace, run, kind, option):
    folder = workspace("vsepp")
    code, out, err = run("export", "--format", kind, "out", *option)
    assert (code, out) == (2, "")
    assert_names(err, option[0], kind)
    assert not (folder / "out").exists()
