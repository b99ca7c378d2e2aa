"""The tracking store goes away while a model trains: one warning, and the same model."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from functools import partial

import forks
import pytest
from disks import mounts, read_only

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    """A real ``mlflow server``: its address, and its process with all that it has started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "files"),
    ]
    process = subprocess.Popen([*command, *stores], stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield address, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def runs(database):
    with sqlite3.connect(database) as connection:
        return connection.execute("select status from runs").fetchall()


def warnings(done):
    return [line for line in done.err.splitlines() if line.startswith("warning:")]


def test_the_server_dies_while_a_model_trains(pristine, workspace, server, tmp_path):
    address, process = server
    shutil.rmtree(workspace / "models/matcher")
    stage = forks.start("train", workspace, MLFLOW_TRACKING_URI=address)
    while not runs(tmp_path / "server.db"):
        stage.process.join(0.01)
        assert stage.process.is_alive(), stage.wait()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = stage.wait()
    assert done.code == 0, done
    assert len(warnings(done)) == 1 and f"MLflow at {address} failed" in done.err, done
    assert "Traceback" not in done.err
    assert forks.outs(workspace, "train") == forks.outs(pristine, "train")
    assert runs(tmp_path / "server.db") == [("RUNNING",)]  # it never heard the end

    done = forks.run("evaluate", workspace, MLFLOW_TRACKING_URI=address)  # nobody listens any more
    assert done.code == 0, done
    assert len(warnings(done)) == 1, done
    assert forks.outs(workspace, "evaluate") == forks.outs(pristine, "evaluate")


def test_a_server_that_lives_has_the_run(pristine, workspace, server, tmp_path):
    shutil.rmtree(workspace / "models/matcher")
    done = forks.run("train", workspace, MLFLOW_TRACKING_URI=server[0])
    assert (done.code, done.err) == (0, ""), done
    assert runs(tmp_path / "server.db") == [("FINISHED",)]
    assert forks.outs(workspace, "train") == forks.outs(pristine, "train")


@mounts
def test_a_database_that_is_read_only(pristine, workspace):
    """The store of a project whose mlflow.db is on a disk that became read-only."""
    (workspace / "store").mkdir()
    with sqlite3.connect(workspace / "store/mlflow.db"):
        pass
    shutil.rmtree(workspace / "models/matcher")
    uri = "sqlite:///store/mlflow.db"
    done = forks.run("train", workspace, partial(read_only, "store"), MLFLOW_TRACKING_URI=uri)
    assert done.code == 0, done
    assert len(warnings(done)) == 1 and "Read-only file system" in done.err, done
    assert "Traceback" not in done.err
    assert forks.outs(workspace, "train") == forks.outs(pristine, "train")
