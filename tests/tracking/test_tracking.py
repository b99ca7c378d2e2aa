"""Tracking: runs are found by content, and no trouble with the store reaches a stage."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crossmodal.tracking import run as tracking
from crossmodal.tracking import store as tracking_store
from crossmodal.tracking.run import find_run, open_training_run

PARAMS = {"model": "tern", "train": {"lr": 5e-4, "epochs": 2}}


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory):
    """A project root with a space in its path; its database is created once: that takes seconds."""
    return tmp_path_factory.mktemp("project root")


@pytest.fixture
def root(shared_root, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(shared_root))
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    return shared_root


@pytest.fixture
def client(root):
    from mlflow import MlflowClient

    return MlflowClient(tracking_store.tracking_uri())


@pytest.fixture
def key():
    return uuid.uuid4().hex


class Server:
    """As much of an MLflow server as a run needs; ``requests`` holds (path, body)."""

    def __init__(self):
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.path.partition("?")[0], json.loads(body or b"{}")))
                answer = {
                    "get-by-name": {"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}},
                    "create": {"run": {"info": {"run_id": "abc", "lifecycle_stage": "active"}}},
                }.get(self.path.partition("?")[0].rpartition("/")[2], {})
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def die(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.die()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def points(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_training_run_holds_everything(root, client, key, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DVC_EXP_NAME", "fuzzy-cat")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "c0ffee")
    (tmp_path / "curve.csv").write_text("step,loss\n")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "index.html").write_text("<html>")
    many = PARAMS | {f"p{i}": i for i in range(250)}  # more than one request takes
    with open_training_run(key, many, {"dvc.stage": "train", "device": "cpu"}) as tracker:
        assert client.get_run(tracker.run_id).info.status == "RUNNING"
        tracker.log_metrics({"train/loss": 0.5, "train/lr": 1e-3}, step=1)
        tracker.log_metrics({"train/loss": 0.25}, step=2)
        tracker.log_artifact(tmp_path / "curve.csv", "curves")
        tracker.log_artifact(tmp_path / "gallery", "gallery")
        tracker.log_dataset("scenes", "d" * 64, "training")

    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"tern-{key[:7]}"  # not the experiment's, which says nothing of the model
    assert client.get_experiment(run.info.experiment_id).name == "crossmodal"
    assert points(client, tracker.run_id, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert len(run.data.params) == 250 + 3
    assert run.data.params["train.lr"] == "0.0005"
    expected = {
        "model.key": key,
        "kind": "training",
        "dvc.stage": "train",
        "device": "cpu",
        "DVC_EXP_NAME": "fuzzy-cat",
        "DVC_EXP_BASELINE_REV": "c0ffee",
    }
    assert expected.items() <= run.data.tags.items()
    [dataset] = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("scenes", "d" * 36)
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]
    artifacts = root / "mlruns" / tracker.run_id / "artifacts"
    assert (artifacts / "curves" / "curve.csv").read_text() == "step,loss\n"
    assert (artifacts / "gallery" / "index.html").is_file()
    assert (root / "mlflow.db").is_file()
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_a_curve_has_a_point_a_step_and_is_there_once(client, key):
    with open_training_run(key, PARAMS) as tracker:
        tracker.log_curve("test/recall/i2t", [10.0, 25.0, 25.0])
    with find_run(key, PARAMS) as again:
        again.log_curve("test/recall/i2t", [10.0, 25.0, 25.0])
    assert again.run_id == tracker.run_id
    assert sorted(points(client, tracker.run_id, "test/recall/i2t")) == [(1, 10.0), (2, 25.0), (3, 25.0)]


def test_a_figure_of_the_whole_run_is_there_once_until_it_changes(client, key):
    with open_training_run(key, PARAMS) as tracker:
        tracker.log_metrics({"test/rsum": 300.0, "test/probe": 1.0})
    with find_run(key, PARAMS) as again:
        again.log_metrics({"test/rsum": 300.0, "test/probe": 2.0})
    assert points(client, tracker.run_id, "test/rsum") == [(0, 300.0)]
    assert points(client, again.run_id, "test/probe") == [(0, 1.0), (0, 2.0)]


def test_a_run_names_every_experiment_that_wrote_to_it(root, client, key, monkeypatch):
    with open_training_run(key, {"model": "tern", "dataset": "scenes", "seed": 3}) as tracker:
        pass
    assert tracking.EXPERIMENTS_TAG not in client.get_run(tracker.run_id).data.tags
    for name in ("first", "second", "first", "third"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        with find_run(key, PARAMS):
            pass
    tags = client.get_run(tracker.run_id).data.tags
    assert (tags["DVC_EXP_NAME"], tags["dvc.experiments"]) == ("third", "first, second, third")
    assert tags["mlflow.runName"] == f"tern-scenes-seed3-{key[:7]}"
    client.set_tag(tracker.run_id, tracking.EXPERIMENTS_TAG, ", ".join(f"experiment-{n:04d}" for n in range(353)))
    monkeypatch.setenv("DVC_EXP_NAME", "last")
    with find_run(key, PARAMS):
        pass
    named = client.get_run(tracker.run_id).data.tags["dvc.experiments"].split(", ")
    assert (named[0], named[-2:]) == ("experiment-0001", ["experiment-0352", "last"])  # the oldest has gone


def test_resumed_training_goes_on_in_its_run(root, client, key):
    with pytest.raises(KeyboardInterrupt), open_training_run(key, PARAMS) as first:
        first.log_metrics({"loss": 1.0}, step=1)
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "KILLED"
    other = {"train": {"lr": 1.0}}  # MLflow would refuse to change train.lr
    with open_training_run(key, other, {"resumed": True}, run_id=first.run_id) as second:
        assert second.run_id == first.run_id
        assert client.get_run(first.run_id).info.status == "RUNNING"
        second.log_metrics({"loss": 0.5}, step=2)
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.0005"
    assert run.data.tags["resumed"] == "True"
    assert points(client, first.run_id, "loss") == [(1, 1.0), (2, 0.5)]


def test_find_run_takes_the_newest_of_its_key(root, client, key):
    with open_training_run(key, PARAMS):
        pass
    time.sleep(0.01)  # runs are ordered by milliseconds
    with open_training_run(key, PARAMS) as newest:
        newest.log_metrics({"val/rsum": 100}, step=1)
    time.sleep(0.01)
    with open_training_run(uuid.uuid4().hex, PARAMS):
        pass
    with find_run(key, {"train": {"lr": 1.0}}, {"evaluated": "yes"}) as tracker:
        assert tracker.run_id == newest.run_id
        assert client.get_run(tracker.run_id).info.status == "RUNNING"
        tracker.log_metrics({"test/i2t/r1": 41.2})
    run = client.get_run(newest.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"val/rsum": 100, "test/i2t/r1": 41.2}
    assert run.data.params["train.lr"] == "0.0005"
    assert run.data.tags["kind"] == "training"
    assert run.data.tags["evaluated"] == "yes"


def test_an_exception_marks_the_run_failed_and_passes_through(root, client, key):
    with pytest.raises(ZeroDivisionError), open_training_run(key, PARAMS) as tracker:
        1 / 0  # noqa: B018
    assert client.get_run(tracker.run_id).info.status == "FAILED"


def test_off_is_silent_and_imports_no_mlflow(tmp_path):
    script = (
        "import os, sys; from pathlib import Path\n"
        "from crossmodal.tracking.run import find_run, open_training_run\n"
        "for opened, enabled in ((open_training_run, False), (open_training_run, True), (find_run, True)):\n"
        "    with opened('k', {'a': 1}, {'b': 2}, enabled=enabled) as tracker:\n"
        "        tracker.log_metrics({'x': 1}); tracker.log_artifact(Path('missing'))\n"
        "        tracker.log_dataset('scenes', 'd', 'training')\n"
        "    assert tracker.run_id is None\n"
        "    os.environ['MLFLOW_TRACKING_URI'] = ''\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "DVC_ROOT": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_unreachable_server_is_one_warning(key, monkeypatch, capsys):
    import mlflow  # noqa: F401, which takes seconds that are not the server's

    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:sec@ret@127.0.0.1:{port}")
    start = time.monotonic()
    with open_training_run(key, PARAMS, {"a": "b"}) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.describe("text")
    assert time.monotonic() - start < 10
    assert tracker.run_id is None
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith(f"warning: MLflow at http://127.0.0.1:{port} failed")
    assert "ret@" not in output.err


def test_server_that_dies_in_the_middle_is_one_warning(server, key, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    with open_training_run(key, PARAMS) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
        server.die()
        start = time.monotonic()
        tracker.log_metrics({"loss": 0.5}, step=2)
        tracker.log_metrics({"loss": 0.4}, step=3)
        assert time.monotonic() - start < 5
    assert tracker.run_id == "abc"
    assert capsys.readouterr().err.count("\n") == 1
    created, params, metrics = [body for path, body in server.requests if body][-3:]
    assert {"key": "model.key", "value": key} in created["tags"]
    assert [param["key"] for param in params["params"]] == ["model", "train.lr", "train.epochs"]
    assert [(m["key"], m["value"], m["step"]) for m in metrics["metrics"]] == [("loss", 1.0, 1)]


@pytest.mark.parametrize("trouble", ["locked", "no database"])
def test_database_that_cannot_be_written_is_one_warning(trouble, key, tmp_path, monkeypatch, capsys):
    database = tmp_path / "runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setattr(tracking_store, "_LOCKED_SECONDS", 0.2)
    holder = sqlite3.connect(":memory:")
    if trouble == "locked":
        holder = sqlite3.connect(database)
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN IMMEDIATE")
    else:
        database.write_text("text " * 1000)
    start = time.monotonic()
    with find_run(key, PARAMS) as tracker:
        tracker.log_metrics({"loss": 1.0})
    holder.close()
    assert time.monotonic() - start < 10
    assert tracker.run_id is None
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(database) in error


def test_four_processes_can_be_the_first_writers(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    script = (  # forks, so that the slow imports are done once; in a process of its own, without threads
        "import multiprocessing, sqlalchemy, mlflow.store.tracking.sqlalchemy_store\n"
        "from crossmodal.tracking.run import open_training_run\n"
        "context = multiprocessing.get_context('fork')\n"
        "start = context.Barrier(4)\n"
        "def work(number):\n"
        "    start.wait()\n"
        "    with open_training_run(f'key{number}', {'a': 1}) as tracker:\n"
        "        tracker.log_metrics({'loss': 1.0}, step=1)\n"
        "    assert tracker.run_id\n"
        "workers = [context.Process(target=work, args=(number,)) for number in range(4)]\n"
        "for worker in workers: worker.start()\n"
        "for worker in workers: worker.join()\n"
        "assert [worker.exitcode for worker in workers] == [0] * 4\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    query = (
        "SELECT tags.value FROM runs JOIN tags USING (run_uuid) "
        "WHERE runs.status = 'FINISHED' AND tags.key = 'model.key'"
    )
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        keys = sorted(row[0] for row in connection.execute(query))
    assert keys == ["key0", "key1", "key2", "key3"]


def test_resume_with_a_run_that_is_gone_opens_a_new_one(root, client, key, capsys):
    with open_training_run(key, PARAMS) as deleted:
        pass
    client.delete_run(deleted.run_id)
    for gone in (deleted.run_id, uuid.uuid4().hex):
        with open_training_run(key, PARAMS, run_id=gone) as tracker:
            assert tracker.run_id not in (None, gone)
    assert capsys.readouterr().err == ""


def test_a_project_folder_with_characters_that_mean_something_in_a_url(tmp_path, monkeypatch):
    """The database is in the folder itself, not in one of the name's first part."""
    root = tmp_path / "a b'\u00e9 [x] #1 %41 ?c=d&e"
    root.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking_store, "project_root", lambda: root)
    client, experiment = tracking_store.connect(tracking_store.tracking_uri())
    run = client.create_run(experiment)
    client.log_dict(run.info.run_id, {"a": 1}, "a.json")
    with sqlite3.connect(root / "mlflow.db") as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(run.info.run_id,)]
    assert [path.name for path in (root / "mlruns").rglob("*.json")] == ["a.json"]
