"""Eight clients at one served model: every answer is that of a single client, and the server's memory stays flat."""

import base64
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forks
import psutil
import pytest

pytestmark = pytest.mark.slow

CLIENTS, SECONDS = 8, 60
WARM_UP = 10  # seconds after which memory is taken to be in use
GROWTH = 64 * 2**20  # bytes that the server may grow by from then on
SENTENCES = ("a red circle left of a blue square", "a star", "two small green rings", "a striped square above a circle")


@pytest.fixture
def server(workspace, tmp_path):
    """The miniature, registered and served on the loopback: its port and its process."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = _run(["-m", "crossmodal.cli", "register", "drilled"], workspace, uri)
    assert done.returncode == 0, done.stderr
    assert re.search(r"drilled version 1, of run", done.stdout), done.stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", "models:/drilled/1"]
    process = subprocess.Popen(
        [*command, "-h", "127.0.0.1", "-p", str(port), "-w", "1"],
        stdout=log,
        stderr=log,
        cwd=workspace,
        env=_environment(uri, workspace),
        start_new_session=True,
    )
    try:
        for _ in range(600):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            if _answers(port):
                break
            time.sleep(0.2)
        yield port, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _environment(uri, folder):
    return os.environ | {
        "MLFLOW_TRACKING_URI": uri,
        "DVC_ROOT": str(folder),
        "PYTHONPATH": str(forks.ROOT / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }


def _run(arguments, folder, uri):
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=_environment(uri, folder), capture_output=True, text=True
    )


def _answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(connection, queries, k=4):
    """Status and answers of one request."""
    content = {"dataframe_split": {"columns": ["query"], "data": [[query] for query in queries]}, "params": {"k": k}}
    connection.request("POST", "/invocations", json.dumps(content), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def memory(process):
    """Bytes that the server and all it has started hold."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return sum(member.memory_info().rss for member in family)


def test_eight_clients_for_a_minute(server, workspace):
    port, process = server
    photographs = sorted((workspace / "data/dataset/images").rglob("*.*"))[:6]
    images = [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in photographs]
    assert len(images) == 6
    requests = [[query] for query in (*SENTENCES, *images)] + [[SENTENCES[1], images[2], SENTENCES[3], images[5]]]
    single = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    expected = []
    for queries in requests:
        status, answer = ask(single, queries)
        assert status == 200, answer
        expected.append(answer)
    assert len({json.dumps(answer) for answer in expected}) == len(expected)
    started, counts, held = time.monotonic(), [], []

    def client(number):
        draw, connection = random.Random(number), http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        wrong, asked = [], 0
        while time.monotonic() < started + SECONDS:
            place = draw.randrange(len(requests))
            asked += 1
            status, answer = ask(connection, requests[place])
            if status != 200 or answer != expected[place]:
                wrong.append((place, status))
        connection.close()
        counts.append(asked)
        return wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        while time.monotonic() < started + SECONDS - 1:
            time.sleep(1)
            if time.monotonic() > started + WARM_UP:
                held.append(memory(process))
        wrong = [fault for running in clients for fault in running.result()]
    growth = max(held) - held[0]
    print(
        f"serving: {sum(counts)} requests of {CLIENTS} clients in {SECONDS} s, {len(wrong)} wrong, "
        f"{held[0] / 1e6:.0f} MB and {growth / 1e6:.1f} MB more"
    )
    assert not wrong
    assert min(counts) > 10
    assert growth < GROWTH
    later = http.client.HTTPConnection("127.0.0.1", port, timeout=60)  # the server closes what is silent for long
    for queries, answer in zip(requests, expected, strict=True):
        assert ask(later, queries) == (200, answer)
    for queries, k, expected_text in (([" "], 4, "row 0 (counted from 0): the sentence is empty"), (["a"], 0, "k: ")):
        status, answer = ask(later, queries, k)
        assert status == 400
        assert expected_text in answer["message"]
        assert "Traceback" not in json.dumps(answer)
