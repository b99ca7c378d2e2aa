import json
from dataclasses import replace
from pathlib import Path

import pytest
from assertions import raises_naming

from crossmodal.reports.metrics_files import write_metrics
from crossmodal.retrieval.results import summary


@pytest.fixture
def search(tmp_path):
    path = tmp_path / "evaluation/search.json"
    path.parent.mkdir()
    path.write_text('{"t2i": {"recall_against_flat": 0.123456789}}')
    return path


def test_metrics_files(tmp_path, results, search, history):
    detector = tmp_path / "detector" / "metrics.json"
    detector.parent.mkdir()
    detector.write_text('{"map50": 0.123456, "classes": {"circle": 0.98765432}, "images": 5}')
    folder = tmp_path / "metrics"
    write_metrics(folder, summary(results), search, history, detector)

    test = json.loads((folder / "test.json").read_text())
    # ranks [0 2 0 5] and [0 1 0 3 2 0 1 3]
    assert test["i2t"] == {"r1": 50.0, "r5": 75.0, "r10": 100.0, "medr": 2.0, "meanr": 2.75}
    assert test["t2i"] == {"r1": 37.5, "r5": 100.0, "r10": 100.0, "medr": 2.0, "meanr": 2.25}
    assert test["rsum"] == 462.5
    assert test["probe"] == {"text": 50.0, "image": 50.0, "group": 50.0}
    assert list(test)[:4] == ["i2t", "t2i", "rsum", "probe"]
    assert json.loads((folder / "validation.json").read_text()) == {"epoch": 2, "rsum": 250.5556, "epochs": 3}
    assert json.loads((folder / "detector.json").read_text()) == {
        "map50": 0.1235,
        "classes": {"circle": 0.9877},
        "images": 5,
    }

    detector.unlink()
    write_metrics(folder, summary(results), search, history, detector)
    names = ["detector.json", "search.json", "test.json", "validation.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads((folder / "detector.json").read_text()) == {}  # grid backbones are not measured


def test_a_cut_off_write_leaves_the_former_figures(tmp_path, results, search, history, monkeypatch):
    """A kill between the first byte and the last; what it leaves under another name is written over later."""
    write_metrics(tmp_path, summary(results), search, history, tmp_path / "none.json")
    before = (tmp_path / "test.json").read_bytes()
    worse = replace(results, i2t_ranks=results.i2t_ranks + 1)
    write = Path.write_bytes

    def killed(path, content):
        write(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            write_metrics(tmp_path, summary(worse), search, history, tmp_path / "none.json")
    assert (tmp_path / "test.json").read_bytes() == before
    write_metrics(tmp_path, summary(worse), search, history, tmp_path / "none.json")
    assert json.loads((tmp_path / "test.json").read_text())["i2t"]["r1"] == 0
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".json", ".csv"}


def test_a_dataset_without_a_probe_has_no_probe_metric(tmp_path, results, search, history):
    without = replace(results, probe=results.probe[:0])
    write_metrics(tmp_path, summary(without), search, history, tmp_path / "none.json")
    assert "probe" not in json.loads((tmp_path / "test.json").read_text())


def test_search_metrics_are_rounded_and_needed(tmp_path, results, search, history):
    write_metrics(tmp_path, summary(results), search, history, tmp_path / "none.json")
    assert json.loads((tmp_path / "search.json").read_text()) == {"t2i": {"recall_against_flat": 0.1235}}
    search.unlink()
    with raises_naming("search.json"):
        write_metrics(tmp_path, summary(results), search, history, tmp_path / "none.json")
