"""``crossmodal register``: what is registered answers in another process, without the pipeline."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.serving.mlflow_model import DEFAULT_K, REQUIREMENTS
from crossmodal.serving.opened import open_session
from crossmodal.settings.params import load_params
from crossmodal.tracking import store as tracking_store

ELSEWHERE = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
import crossmodal
schema = model.metadata.signature
table = model.predict(pandas.DataFrame({"query": ["a red picture", "nothing but lime <b>"]}), params={"k": 3})
columns = [column.name for column in schema.outputs.inputs]
default = schema.params.params[0].default
found = [crossmodal.__file__, table.columns.tolist(), columns, default, table["ids"].tolist(), table["scores"].tolist()]
print(json.dumps(found))
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of the test's own, not there yet; gives a client of it."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    yield lambda: mlflow.MlflowClient(tracking_store.tracking_uri())
    mlflow.set_tracking_uri(None)


def test_it_is_registered_once_and_answers_elsewhere(run, workspace, store, tmp_path, monkeypatch):
    folder = workspace("vsepp")
    with np.load("results/evaluation/results.npz") as arrays:
        scores = arrays["t2i_scores"]
    code, out, err = run("register")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("register: 8 images and 16 captions of colours, vsepp, FAISS Flat; ")
    assert re.match(r"register: crossmodal-vsepp-colours version 1, of run [0-9a-f]{32}$", lines[1])
    assert lines[2] == 'register: load it by mlflow.pyfunc.load_model("models:/crossmodal-vsepp-colours/1")'

    store = store()
    made = store.get_model_version("crossmodal-vsepp-colours", "1")
    trained = store.get_run(made.run_id)
    assert trained.data.tags["model.key"] == "key of vsepp"
    assert (trained.data.tags["kind"], trained.info.status) == ("evaluation-only", "FINISHED")
    assert [output.model_id for output in trained.outputs.model_outputs] == [made.source.removeprefix("models:/")]

    code, out, _ = run("register")
    assert code == 0
    assert f"crossmodal-vsepp-colours version 1, already there, of run {made.run_id}" in out
    code, out, _ = run("register", "it's mine")
    assert "it's mine version 1, of run" in out
    assert store.get_model_version("it's mine", "1").source == made.source  # one copy of the files under two names
    assert "it's mine version 1, already there" in run("register", "it's mine")[1]
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("top_k: 10", "top_k: 9"))
    assert "it's mine version 2, of run" in run("register", "it's mine")[1]

    files = folder / "mlruns/models" / made.source.removeprefix("models:/") / "artifacts"
    shutil.copytree(files, tmp_path / "elsewhere/model")
    shutil.rmtree(folder)
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "model"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    package, columns, declared, default, ids, found = json.loads(done.stdout)
    assert package == str(tmp_path / "elsewhere/model/code/crossmodal/__init__.py")
    assert columns == declared
    assert default == DEFAULT_K
    np.testing.assert_allclose(found, scores[[0, 3], :3], atol=2e-3)
    assert [len(row) for row in ids] == [3, 3]
    required = (tmp_path / "elsewhere/model/requirements.txt").read_text().splitlines()
    assert len(required) == len(REQUIREMENTS) + 1
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in required)


@pytest.mark.parametrize(
    ("arguments", "uri", "expected"),
    [
        ([], "http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 failed ("),
        (["a/b"], None, "NAME 'a/b': the name of a registered model is not empty and has no / and no :"),
        (["--in", "evaluation of vsepp"], None, "made by another matcher (vsepp, key of vsepp)"),
        (["--limit", "0"], None, "raise --limit"),
    ],
)
def test_a_mistake_is_one_line(run, workspace, monkeypatch, arguments, uri, expected):
    workspace("scan")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db" if uri is None else uri)
    code, out, err = run("register", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


def test_a_registered_model_is_served_with_and_without_the_pipeline(run, workspace, store, tmp_path):
    """Its matcher, text encoder and detector; the gallery is the pipeline's while it is there, else its own."""
    folder = workspace("vsepp")
    with np.load("results/evaluation/results.npz") as arrays:
        top, scores = arrays["t2i_top"][0, :3], arrays["t2i_scores"][0, :3]
    assert run("register")[0] == 0
    shutil.rmtree("models")
    uri, params = "models:/crossmodal-vsepp-colours/1", load_params()
    for number, photographs in enumerate((True, False)):
        session = open_session(None, uri, params, tmp_path / str(number))
        session.warm()
        found = session.by_sentence("a red picture", 3).found
        assert [result.item for result in found] == top.tolist()
        np.testing.assert_allclose([result.score for result in found], scores, atol=2e-3)
        assert session.takes_photographs
        assert session.image_path(0).is_file() == photographs
        for name in ("data", "results"):
            shutil.rmtree(folder / name, ignore_errors=True)
    with raises_naming("models:/nobody/1: "):
        open_session(None, "models:/nobody/1", params, tmp_path / "2")
