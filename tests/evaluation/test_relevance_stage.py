"""Stages relevance and evaluate: what the former leaves, and the figures that the latter makes of it."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import yaml

from crossmodal.evaluation.protocols import all_metrics
from crossmodal.evaluation.ranking import Pairs
from crossmodal.evaluation.rouge import rouge_l_relevance
from crossmodal.files.checked_arrays import load_arrays
from crossmodal.reports.metrics_files import read_metrics
from crossmodal.retrieval.results import SearchResults
from stages import evaluate, relevance, train

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [(f"caption {row} a", f"caption {row} b") for row in range(32, 40)]  # of the test split of tiny_data


@pytest.fixture
def write_params(featured_root):
    """Writes params.yaml with changes of sections into a root with features."""

    def _write(**sections):
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for section, changes in sections.items():
            params[section] = params[section] | changes if isinstance(changes, dict) else changes
        Path("params.yaml").write_text(yaml.safe_dump(params))

    return _write


def test_relevance_of_the_test_split(write_params, capsys):
    write_params()
    relevance.main()
    assert "rouge_l of 16 captions with 8 images, in data/relevance" in capsys.readouterr().out
    expected = rouge_l_relevance([text for texts in TEXTS for text in texts], TEXTS)
    np.testing.assert_array_equal(np.load("data/relevance/test.npy"), expected)
    first = Path("data/relevance/test.npy").read_bytes()
    relevance.main()
    assert Path("data/relevance/test.npy").read_bytes() == first


def similarity(folder):
    """The matrix that the evaluate stage leaves, or that of the vectors in its exact indexes."""
    if (folder / "similarity.npy").is_file():
        return np.load(folder / "similarity.npy")
    images, captions = (faiss.read_index(str(folder / f"{name}.faiss")) for name in ("images", "captions"))
    return images.reconstruct_n(0, images.ntotal) @ captions.reconstruct_n(0, captions.ntotal).T


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vsepp", "scan"])
def test_figures_of_exact_scores(write_params, model, capsys):
    """Of a model with one vector an item, and of one that compares sets."""
    settings = {"model": model, model: {"embed_dim": 16}, "train": {"epochs": 1, "batch_size": 9}}
    write_params(**settings, evaluate={"folds": 2, "explained": 0})
    relevance.main()
    train.main()
    evaluate.main()
    results = load_arrays(SearchResults, Path("results/evaluation/results.npz"))
    metrics = read_metrics(Path("results/evaluation/metrics.json"))
    for direction, ranks in (("i2t", results.i2t_ranks), ("t2i", results.t2i_ranks)):
        assert metrics[direction]["mrr"] == pytest.approx(np.mean(1 / (ranks + 1)))
        assert 0 < metrics[direction]["ndcg25"] <= 1
        assert metrics["folds"][direction]["r10"] >= metrics[direction]["r10"]  # four images in place of eight
    exact = all_metrics(similarity(Path("results/evaluation")), Pairs.of_captions(np.arange(16) // 2))
    assert metrics["i2t"]["map"] == pytest.approx(exact["i2t"]["map"])
    assert metrics["t2i"]["map"] == pytest.approx(exact["t2i"]["map"])
    assert metrics["folds"]["folds"] == 2
    assert json.loads(Path("results/evaluation/metrics.json").read_text()) == metrics

    write_params(**settings, evaluate={"explained": 0}, relevance={"measure": "none"})
    relevance.main()
    evaluate.main()
    without = read_metrics(Path("results/evaluation/metrics.json"))
    assert not Path("data/relevance/test.npy").exists()
    assert "folds" not in without
    assert without["i2t"] == {name: value for name, value in metrics["i2t"].items() if name != "ndcg25"}

    write_params(**settings, evaluate={"folds": 3})
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate.main()
    assert capsys.readouterr() == ("", "error: evaluate.folds 3: 8 images do not divide into 3 equal folds\n")


@pytest.mark.slow
def test_an_image_without_regions_is_left_out_of_the_relevance_too(write_params):
    """The relevance stage does not know that the regions stage left the third test image out."""
    index = json.loads(Path("data/regions/index.json").read_text())
    index["metadata"]["left_out"] = [{"row": 34, "image": "test-34", "reason": "cut off"}]
    Path("data/regions/index.json").write_text(json.dumps(index))
    model = {"model": "vsepp", "vsepp": {"embed_dim": 16}, "train": {"epochs": 1, "batch_size": 9}}
    write_params(**model, evaluate={"explained": 0})
    for stage in (relevance, train, evaluate):
        stage.main()
    left = TEXTS[:2] + TEXTS[3:]
    graded = rouge_l_relevance([text for texts in left for text in texts], left)
    exact = all_metrics(similarity(Path("results/evaluation")), Pairs.of_captions(np.arange(14) // 2), graded)
    metrics = read_metrics(Path("results/evaluation/metrics.json"))
    assert (metrics["images"], metrics["captions"]) == (7, 14)
    for direction in ("i2t", "t2i"):
        assert metrics[direction]["ndcg25"] == pytest.approx(exact[direction]["ndcg25"])
