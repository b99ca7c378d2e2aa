"""A trained matcher in a task of MTEB's own evaluator gets the recalls of metrics.json.

Needs the extra ``mteb``; without it the tests are skipped.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from assertions import raises_naming

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'crossmodal[mteb]'")

from crossmodal.serving.mteb import MatcherSearch  # noqa: E402

_SPEC = importlib.util.spec_from_file_location(
    "search_mteb", Path(__file__).resolve().parents[2] / "benchmarks/search_mteb.py"
)
search_mteb = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(search_mteb)


@pytest.mark.parametrize("way", ["i2t", "t2i"])
@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_hit_rates_are_the_recalls_of_metrics_json(workspace, name, way):
    folder = workspace(name)
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    found = search_mteb.hit_rates(folder / "data/dataset", way, MatcherSearch())
    assert found == pytest.approx({recall: metrics[way][recall] for recall in found}, abs=0.01)


def test_the_protocol_is_mtebs_and_scores_are_the_matrix(workspace):
    folder = workspace("scan")
    search = MatcherSearch()
    assert isinstance(search, mteb.SearchProtocol)
    assert (search.mteb_model_meta.name, search.mteb_model_meta.revision) == ("crossmodal/scan", "key of scan")
    task = search_mteb.task_of(folder / "data/dataset", "t2i")
    task.load_data()
    data = task.dataset["default"]["test"]
    search.index(data["corpus"])
    found = search.search(data["queries"], top_k=3)
    matrix = np.load(folder / "results/evaluation/similarity.npy")
    for number, (query, scores) in enumerate(found.items()):
        assert query == data["queries"]["id"][number] and len(scores) == 3
        np.testing.assert_allclose(list(scores.values()), np.sort(matrix[:, number])[::-1][:3], atol=1e-5)
    listed = {query: ["image-00003", "image-00001"] for query in found}
    assert all(set(scores) == set(listed[query]) for query, scores in
               search.search(data["queries"], top_k=5, top_ranked=listed).items())  # fmt: skip
    with raises_naming("MTEB task", "queries and corpus", "both of images"):
        search.search(data["corpus"], top_k=3)
    with raises_naming("MTEB task", "corpus", "columns id,", "image or text"):
        search.index(data["corpus"].remove_columns("image"))
