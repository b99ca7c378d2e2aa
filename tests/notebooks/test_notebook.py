"""The notebook is kept without outputs, and runs from end to end on a few scenes."""

import importlib
import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "notebooks/regions-and-words.ipynb"
SMALL = {
    "scenes": {"train": 8, "val": 4, "test": 8, "probe": 2, "size": 96, "captions": 2},
    "regions": {"workers": 0, "per_image": 4},
    "detector": {"epochs": 1, "width": 8, "feature_dim": 16},
    "bert": {"vocab_size": 100, "fit_layers": 1, "hidden_size": 16, "heads": 2, "epochs": 1, "batch_size": 8},
    "train": {"epochs": 1, "batch_size": 4, "warmup_steps": 2},
    "tern": {"embed_dim": 16, "visual_dim": 16, "heads": 2, "feed_forward": 16},
    "evaluate": {"explained": 0, "pointed": 0},
}
STAGES = ("settings", "download", "detector", "regions", "bert", "captions", "relevance", "train", "evaluate")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PATH, as_version=4)


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """A folder in which all stages but the report have run on a few scenes."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        settings[section] |= {key: value for key, value in values.items() if key in settings[section]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage"])
    for stage in STAGES:
        importlib.import_module(f"stages.{stage}").main()
    torch.use_deterministic_algorithms(False)
    return tmp_path


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}
    assert PATH.stat().st_size < 30_000


def test_its_first_cell_installs_on_colab(notebook):
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "google.colab" in first
    files = re.findall(r"-r (\S+)", first)
    assert files == ["requirements.txt"]
    assert (ROOT / files[0]).is_file()


def test_it_runs_on_scenes(notebook, scenes, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(scenes / "ipython"))
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(scenes)}})
    executed = client.execute()
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert len(pictures) == 5  # boxes, scores, words by regions, the strongest words, results
    assert printed.startswith("24 images; image 12 has ")
    assert "as stored: True" in printed
    assert re.search(r"features \(\d+, 16\)", printed)
    assert "8 images of test, tern, FAISS Flat" in printed
