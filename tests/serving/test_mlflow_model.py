"""The packed search answers as the pipeline it was packed from, which is gone by then."""

import base64
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

import grimp
import numpy as np
import pandas as pd
import pytest
import yaml
from assertions import raises_naming
from threads import answers_of_threads
from tiny_pipeline import COLOURS

from crossmodal.errors import UserError
from crossmodal.serving.bundle import Serving, digest, pack, read_serving
from crossmodal.serving.mlflow_model import REQUIREMENTS, ServedSearch, read_query
from crossmodal.serving.session import Folders
from crossmodal.tracking.registry import requirements
from stages import evaluate

STORES = ("gallery/regions", "captions")


@pytest.fixture
def packed(workspace, tmp_path, monkeypatch):
    """Packs the evaluated pipeline of a matcher, takes the rest away: the results of the evaluation, the folder."""

    def _packed(name, *, server_files=False, **changes):
        folder = workspace(name)
        if changes:
            settings = yaml.safe_load((folder / "params.yaml").read_text())
            settings["evaluate"] |= changes
            (folder / "params.yaml").write_text(yaml.safe_dump(settings))
            evaluate.main()
        with np.load("results/evaluation/results.npz") as arrays:
            results = dict(arrays)
        packed, gallery = tmp_path / "away/packed", folder / "results/evaluation"
        pack(gallery, folder / "params.yaml", Folders(), packed, 1, server_files=server_files)
        (tmp_path / "photographs").mkdir()
        for colour in COLOURS:
            shutil.copy(f"data/dataset/images/{colour}.png", tmp_path / "photographs")
        shutil.move(folder, tmp_path / "gone")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree("gone")
        return results, tmp_path / "away/packed"

    return _packed


@pytest.fixture(scope="module")
def packed_once(pipeline, tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "packed"
    folders = Folders(
        **{name: pipeline / place for name, place in vars(Folders()).items() if name not in ("matcher", "evaluation")},
        matcher=pipeline / "vsepp",
    )
    pack(pipeline / "evaluation of vsepp", pipeline / "params.yaml", folders, out, limit=1)
    return ServedSearch(out)


def as_data(path):
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vsepp", {}),
        ("scan", {}),
        ("scan", {"mode": "shortlist_rerank", "shortlist": 16, "shortlist_by": "vsepp"}),
        ("scan", {"mode": "shortlist_rerank", "shortlist": 16, "shortlist_by": "muvera"}),
    ],
)
def test_it_finds_what_the_evaluation_found(packed, name, changes):
    results, folder = packed(name, **changes)
    model = ServedSearch(folder)
    sentences = [text for colour in COLOURS for text in (f"a {colour} picture", f"nothing but {colour} <b>")]
    table = model.predict(pd.DataFrame({"query": sentences}), {"k": 3})
    assert list(table["query"]) == sentences
    assert set(table["kind"]) == {"text"}
    np.testing.assert_allclose(np.stack(table["scores"]), results["t2i_scores"][:, :3], atol=2e-3)
    assert [ids[0] for ids in table["ids"]] == [COLOURS[item] for item in results["t2i_top"][:, 0]]
    assert table["captions"][0] == [f"a {colour} picture" for colour in table["ids"][0]]

    photographs = [as_data(f"photographs/{colour}.png") for colour in COLOURS]
    table = model.predict(pd.DataFrame({"query": photographs}))
    assert set(table["kind"]) == {"image"}
    assert {len(ids) for ids in table["ids"]} == {10}
    np.testing.assert_allclose(np.stack(table["scores"]), results["i2t_scores"], atol=2e-3)
    found = table["ids"][2][0]
    assert found == f"{COLOURS[results['i2t_top'][2, 0] // 2]}#{results['i2t_top'][2, 0] % 2}"
    assert table["captions"][2][0] == sentences[results["i2t_top"][2, 0]]


def test_only_the_gallery_goes_along(packed):
    _, folder = packed("scan")
    records = [json.loads(line) for line in (folder / "gallery/dataset/records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == COLOURS
    assert [json.loads((folder / place / "index.json").read_text())["shards"][0]["rows"] for place in STORES] == [8, 16]


def test_an_image_is_sent_and_its_content_does_not_come_back(packed):
    _, folder = packed("vsepp", server_files=True)
    model = ServedSearch(folder)
    sent = as_data("photographs/blue.png")
    odd = sent.replace("data:image/png", " \n DATA:IMAGE/Png") + "\n"
    table = model.predict(
        pd.DataFrame({"query": ["photographs/blue.png", sent, odd, sent], "kind": [None, "image", None, ""]})
    )
    assert set(table["kind"]) == {"image"}
    for row in (1, 2, 3):
        assert table["ids"][row] == table["ids"][0]
        assert table["scores"][row] == table["scores"][0]
    assert table["query"][1] == "data:image/png;base64"


def test_files_of_the_server_are_no_queries_unless_the_model_was_logged_so(packed):
    _, folder = packed("vsepp")
    model = ServedSearch(folder)
    there, not_there = "photographs/blue.png", "photographs/none.png"
    assert list(model.predict(pd.DataFrame({"query": [there, not_there]}))["kind"]) == ["text", "text"]
    answers = []
    for path in (there, not_there):
        with pytest.raises(UserError) as error:
            model.predict(pd.DataFrame({"query": [path], "kind": ["image"]}))
        answers.append(str(error.value).replace(path, "PATH"))
    assert answers[0] == answers[1]


def test_what_is_an_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a dog").write_text("")

    def kind_of(query, kind, server_files=True):
        return read_query(query, kind, server_files=server_files).kind

    assert kind_of("a dog", None) == "image"
    assert kind_of("a dog", None, server_files=False) == "text"
    assert kind_of("a dog", float("nan")) == "image"  # an empty cell of a table
    assert kind_of("a dog", pd.NA) == "image"
    assert kind_of("a dog", "text") == "text"
    assert kind_of("a cat.png", "") == "text"
    assert kind_of("a dog", "image") == "image"
    assert kind_of("data:image/png;base64,AAAA", None, server_files=False) == "image"
    assert kind_of("\tData:Image/PNG;Base64,AAAA", None, server_files=False) == "image"
    assert kind_of("data: a table of numbers", None) == "text"
    assert kind_of("word " * 2000, None) == "text"
    assert kind_of("a\0b", None) == "text"


@pytest.mark.parametrize("k", [None, 0, 1001, True, 5.0], ids=lambda k: type(k).__name__)
def test_k_is_a_number_of_results(packed_once, k):
    with raises_naming("k: ", "1 to 1,000", f"found {k}") as error:
        packed_once.predict(pd.DataFrame({"query": ["a"]}), {"k": k})
    assert len(str(error.value)) < 200
    assert len(packed_once.predict(pd.DataFrame({"query": ["a"]}), {"k": np.int64(1000)})["ids"][0]) == 8


def test_the_row_that_is_wrong_is_named_before_any_is_searched_for(packed_once, monkeypatch):
    monkeypatch.setattr(packed_once.session, "find_images", None)
    sentences = ["a red picture"] * 1000
    sentences[617] = " "
    with raises_naming("row 617 (counted from 0)", "empty"):
        packed_once.predict(pd.DataFrame({"query": sentences}))
    with raises_naming("queries: ", "1,001", "1,000 at most"):
        packed_once.predict(pd.DataFrame({"query": [*sentences, "a"]}))


def test_long_sentences_and_large_images_are_refused_before_work_on_them(packed_once, monkeypatch):
    monkeypatch.setattr(packed_once.session, "find_images", None)
    monkeypatch.setattr(base64, "b64decode", None)
    for query, named in (
        ("a red picture " * 1_500_000, ("sentence", "21,000,000", "10,000 at most")),
        ("data:image/png;base64," + "A" * 60_000_000, ("image", "45.0 MB", "32 MB at most")),
    ):
        with raises_naming("row 0 ", *named) as error:
            packed_once.predict(pd.DataFrame({"query": [query]}))
        assert len(str(error.value)) < 300


def test_a_bundle_that_says_nothing_allows_nothing(tmp_path):
    assert read_serving(tmp_path) == Serving(server_files=False)
    for content in ("{", '{"server_files": 1}', '{"others": true}', "[" * 100_000):
        (tmp_path / "serving.json").write_text(content)
        with raises_naming(tmp_path / "serving.json"):
            read_serving(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vsepp", {}),
        ("scan", {"mode": "shortlist_rerank", "shortlist": 16, "shortlist_by": "vsepp"}),
    ],
)
def test_threads_get_what_one_gets(packed, name, changes):
    _, folder = packed(name, **changes)
    requests = [f"a {colour} picture" for colour in COLOURS[:4]]
    requests += [as_data(f"photographs/{colour}.png") for colour in COLOURS[:4]]
    shared = ServedSearch(folder)  # nothing of it was asked for before the threads begin

    def ask(model, query):
        table = model.predict(pd.DataFrame({"query": [query]}), {"k": 5})
        return table["ids"][0], table["scores"][0]

    several = answers_of_threads(lambda query: ask(shared, query), requests)
    alone = {query: ask(ServedSearch(folder), query) for query in requests}
    for query, answer in [*several, *((query, ask(shared, query)) for query in requests)]:
        assert answer == alone[query]


@pytest.mark.parametrize(
    ("columns", "k", "expected"),
    [
        ({"text": ["a"]}, 1, "expected a column 'query', found 'text'"),
        ({"query": ["a"], "kind": ["sound"]}, 1, "kind: expected text or image, found 'sound'"),
        ({"query": [None]}, 1, "query: expected a sentence or an image, found None"),
        ({"query": ["data:image/png;base64,ä"]}, 1, "expected data:image/TYPE;base64,CONTENT"),
        ({"query": ["nowhere.png"], "kind": ["image"]}, 1, "row 0 (counted from 0): query: expected data:image/TYPE"),
        ({"query": ["data:image/svg+xml,<svg/>"]}, 1, "query: expected data:image/TYPE;base64,CONTENT"),
        ({"query": ["data:image/png;base64,AAAA"]}, 1, "the image that was sent: no image"),
    ],
)
def test_a_mistake_says_what_was_expected(packed_once, columns, k, expected):
    with pytest.raises(UserError) as error:
        packed_once.predict(pd.DataFrame(columns), {"k": k})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_what_it_requires_is_what_it_imports():
    """Of what is not Python's own; pandas comes with MLflow, detectron2 has no release to name."""
    graph = grimp.build_graph("crossmodal", include_external_packages=True, cache_dir=None)
    reached = {"crossmodal.serving.mlflow_model"} | graph.find_upstream_modules("crossmodal.serving.mlflow_model")
    packages = {name for name in reached if not name.startswith("crossmodal")} - {*sys.stdlib_module_names}
    distributions = importlib.metadata.packages_distributions()
    wanted = {distributions[name][0].lower() for name in packages - {"pandas", "detectron2", "pillow_heif"}}
    assert {line.partition("==")[0] for line in requirements(REQUIREMENTS)} == {"mlflow", *wanted}


def test_digest_is_of_names_and_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below/x").write_text("1")
        (tmp_path / name / "y").write_text("2")
    same = digest([tmp_path / "a"])
    (tmp_path / "a/__pycache__").mkdir()
    (tmp_path / "a/__pycache__/x.pyc").write_text("3")
    assert digest([tmp_path / "b"]) == digest([tmp_path / "a"]) == same
    (tmp_path / "b/below/x").write_text("1'")
    assert digest([tmp_path / "b"]) != same
    (tmp_path / "a/y").rename(tmp_path / "a/z")
    assert digest([tmp_path / "a"]) not in (same, digest([tmp_path / "b"]))
