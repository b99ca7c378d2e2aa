"""The report puts the whole story on the run's page, also in a store that has never seen the training."""

from pathlib import Path

import pytest

from crossmodal.datasets.records import read_dataset
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import load_arrays
from crossmodal.models.checkpoint import read_config
from crossmodal.paths import DATASET, EVALUATION, MATCHER, REGIONS
from crossmodal.reports.metrics_files import read_metrics
from crossmodal.retrieval.results import SearchResults
from crossmodal.settings.params import load_params
from crossmodal.tracking import store as tracking_store
from stages.report import track


def test_the_page_has_weights_settings_digests_and_figures(workspace, monkeypatch):
    from mlflow import MlflowClient

    workspace("vsepp")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for path, content in {
        "metrics/search.json": '{"i2t": {"recall_against_flat": 1.0}}',
        "metrics/detector.json": '{"ap50": 0.5, "ap50_per_class": {"ring": 0.5}}',
        "results/report/gallery.html": "<html>",
    }.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(content)
    results, metrics = load_arrays(SearchResults, EVALUATION / "results.npz"), read_metrics(EVALUATION / "metrics.json")
    for _ in range(2):  # a second report adds nothing
        track(load_params(), read_config(MATCHER), read_dataset(DATASET), FeatureStore(REGIONS), results, metrics)

    client = MlflowClient(tracking_store.tracking_uri())
    [run] = client.search_runs([client.get_experiment_by_name("crossmodal").experiment_id])
    assert run.data.metrics["test/rsum"] == pytest.approx(metrics["rsum"])
    assert run.data.metrics["test/i2t/r1"] == pytest.approx(metrics["i2t"]["r1"])
    assert run.data.metrics["search/i2t/recall_against_flat"] == 1
    assert run.data.metrics["detector/ap50"] == 0.5
    assert len(client.get_metric_history(run.info.run_id, "test/rsum")) == 1
    assert run.data.tags["evaluate.index"] == "Flat"
    assert run.data.tags["mlflow.note.content"].startswith("**vsepp on colours**, 8 test images, 16 captions")
    assert {data.dataset.name for data in run.inputs.dataset_inputs} == {"colours", "colours-regions"}
    expected = {
        "matcher": MATCHER / "model.safetensors",
        "settings": Path("params.yaml"),
        "data": DATASET / "manifest.json",
        "report": Path("results/report/gallery.html"),
        "metrics": Path("metrics/search.json"),
    }
    for place, path in expected.items():
        kept = client.download_artifacts(run.info.run_id, f"{place}/{path.name}")
        assert Path(kept).read_bytes() == path.read_bytes()
