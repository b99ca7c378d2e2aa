"""benchmarks/gpu_training.py and gpu_figures.py, small and on the CPU."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from assertions import assert_names

ROOT = Path(__file__).resolve().parents[2]
SGRAF = """
import torch

class SGRAF(object):
    def __init__(self, opt):
        self.layer = torch.nn.Linear(opt.img_dim, opt.sim_dim)
        self.criterion = torch.nn.Module()
        self.criterion.forward = self.loss
        self.name = opt.module_name

    def train_start(self):
        self.layer.train()

    def loss(self, scores):
        assert torch.cuda.is_available()
        return scores.sum()

    def train_emb(self, images, captions, lengths):
        assert images.shape[1:] == (36, 32) and images.dtype == torch.float32
        assert lengths == sorted(lengths, reverse=True) == (captions != 0).sum(dim=1).tolist()
        loss = self.criterion.forward(self.layer(images.cuda()))
        self.logger.update("Loss", loss.item(), len(images))
        loss.backward()
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark's ``main`` with arguments: exit code, stdout, stderr."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(ROOT)

    def _run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        code = 0
        try:
            importlib.import_module(script).main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return _run


def table(text):
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_features_on_the_device_are_gathered_by_their_numbers(run):
    copied = []
    for where in ("host", "device"):
        code, out, _ = run("gpu_training", "--small", "--device", "cpu", "--models", "tern", "--features", where)
        assert code == 0
        copied.append(float(table(out)[0]["MB copied"]))
    saved = 12 * 36 * (32 * 2 + 4 * 4 - 8) / 1e6  # of a region: halves and coordinates, for a number
    assert copied[0] - copied[1] == pytest.approx(saved, abs=1.1e-3)


def test_a_small_table_with_the_published_step(run, tmp_path):
    """The checkout stands for the published code, which is not part of this repository."""
    (tmp_path / "model.py").write_text(SGRAF)
    options = ["--small", "--device", "cpu", "--models", "vse_infty", "sgr", "--published", tmp_path]
    code, out, _ = run("gpu_training", *options)
    assert code == 0
    rows = table(out)
    assert [row["model"] for row in rows] == ["vse_infty", "sgr", "sgr, published", "saf, published"]
    assert list(rows[0]) == ["model", "samples/s", "MB copied"]  # no columns of a GPU
    # 12 images of 36 regions: 32 halves, 4 coordinates, a byte of mask; ids of some words, and two indices a pair
    assert 0.03 < float(rows[0]["MB copied"]) <= 0.04
    assert float(rows[2]["MB copied"]) > 12 * 36 * 32 * 4 / 1e6  # float32
    assert all(float(row["samples/s"].replace(",", "")) > 0 for row in rows)


def test_a_folder_that_is_no_checkout(run, tmp_path):
    code, _, message = run("gpu_training", "--small", "--published", tmp_path)
    assert code == 2
    assert_names(message, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs at published sizes on a GPU")
def test_region_extraction(run):
    code, out, _ = run("region_extraction", "--small", "--networks", "grid", "fitted")
    assert code == 0
    rows = table(out)
    assert [row["network"] for row in rows] == ["grid", "fitted"]
    assert all(float(row["ratio"]) > 0 for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs at published sizes on a GPU")
def test_the_tables_come_between_the_markers_on_a_gpu_or_when_told(run, monkeypatch, tmp_path):
    docs, before = (
        tmp_path / "gpu.md",
        "# A title\n\n<!-- gpu-figures: begin -->\nold\n<!-- gpu-figures: end -->\n\nafter\n",
    )
    docs.write_text(before)
    gpu_figures = importlib.import_module("gpu_figures")
    monkeypatch.setattr(gpu_figures.gpu_training, "rows", lambda arguments: [{"model": "tern", "peak GB": ""}])
    monkeypatch.setattr(gpu_figures.region_extraction, "rows", lambda arguments: [{"network": "grid", "ratio": "2"}])
    code, out, message = run("gpu_figures", "--docs", docs)
    assert code == 2
    assert_names(message, docs)
    assert docs.read_text() == before
    assert "| tern |" in out

    assert run("gpu_figures", "--docs", docs, "--write")[0] == 0
    text = docs.read_text()
    assert text.startswith("# A title\n\n<!-- gpu-figures: begin -->\n\na CPU")
    assert text.endswith("<!-- gpu-figures: end -->\n\nafter\n")
    assert "| model |\n| --- |\n| tern |" in text
    assert "| network | ratio |\n| --- | --- |\n| grid | 2 |" in text
    assert "old" not in text

    docs.write_text(before.replace("begin", "start"))
    code, out, message = run("gpu_figures", "--docs", docs, "--write")
    assert (code, out) == (2, "")
    assert_names(message, docs, "<!-- gpu-figures: begin -->")
