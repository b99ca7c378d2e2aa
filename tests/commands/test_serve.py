"""``crossmodal serve`` as a person starts it, its server asked in place of being run."""

import json
import re
import socket

import pytest
import uvicorn
from fastapi.testclient import TestClient
from tiny_pipeline import COLOURS


@pytest.fixture
def started(monkeypatch):
    """Takes the place of the server's loop: asks every path that was given, and keeps the answers and the address."""
    asked = {}

    def _run(self, sockets):
        socket.create_connection(sockets[0].getsockname(), timeout=5).close()  # it listens already
        asked["seconds to the end"] = self.config.timeout_graceful_shutdown
        asked["address"] = sockets[0].getsockname()[:2]
        with TestClient(self.config.app, base_url="http://gallery.example") as client:
            for path in asked.get("paths", ()):
                asked[path] = client.get(path, headers=asked.get("headers", {})).json()

    monkeypatch.setattr(uvicorn.Server, "run", _run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return asked


def test_it_prints_where_it_is_and_answers_to_this_machine_alone(run, workspace, started):
    workspace("vsepp")
    started["paths"] = ["/api/about"]
    code, out, err = run("serve", "--port", 0)
    assert (code, err) == (0, "")
    address, port = started["address"]
    assert address == "127.0.0.1"
    assert started["seconds to the end"] == 3  # a client that does not finish its request cannot hold it up
    assert out.splitlines() == [
        "serve: 8 images and 16 captions of colours, vsepp, FAISS Flat",
        f"serve: http://127.0.0.1:{port}/ (Ctrl-C ends it)",
    ]
    assert "127.0.0.1, ::1, localhost" in started["/api/about"]["error"]


def test_everywhere_is_said_and_two_matchers_answer(run, workspace, started):
    workspace("vsepp")
    started["paths"] = ["/api/about", "/api/search?q=a+red+picture&k=1&matcher=1"]
    code, out, _ = run("serve", "--port", 0, "--host", "0.0.0.0", "--against", "scan")
    assert code == 0
    assert started["address"][0] == "0.0.0.0"
    assert "every machine that reaches this one can search" in out
    assert [matcher["name"] for matcher in started["/api/about"]["matchers"]] == ["vsepp", "scan"]
    assert started["/api/search?q=a+red+picture&k=1&matcher=1"]["results"][0]["id"] in COLOURS


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--against", "nowhere"), "matcher nowhere: no such folder"),
        (("--gallery", "nowhere"), "nowhere/gallery.json: not found"),
        (("--host", "203.0.113.7"), "--host 203.0.113.7 --port 0: cannot listen there"),
        (("--matcher", "models:/nobody/1"), "MLFLOW_TRACKING_URI: empty"),
    ],
)
def test_a_mistake_is_one_line(run, workspace, started, arguments, text):
    workspace("vsepp")
    code, _, err = run("serve", "--port", 0, *arguments)
    assert code == 2
    assert text in err
    assert "Traceback" not in err


def test_a_port_in_use_is_an_error_before_anything_is_loaded(run, tmp_path, monkeypatch, started):
    monkeypatch.chdir(tmp_path)  # where nothing is
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", "--port", port)
    assert code == 2
    assert f"--port {port}: cannot listen there (Address already in use)" in err


def test_a_folder_made_by_embed_is_served_in_the_same_way(run, workspace, started):
    """Its regions were not kept: the detector finds them when words are asked for."""
    folder = workspace("vsepp")
    threshold = {"key": "key of vsepp", "score": 0.25, "slope": 1.0, "images": 8, "captions": 16}
    (folder / "results/evaluation/threshold.json").write_text(json.dumps(threshold))
    assert run("embed", "data/dataset/images", "--out", "results/mine")[0] == 0
    started["paths"] = ["/api/about", "/api/search?q=a+red+picture", "/api/similar/0?k=3"]
    started["headers"] = {"Host": "localhost"}
    code, out, _ = run("serve", "--port", 0, "--gallery", "results/mine")
    assert code == 0
    assert "serve: 8 images of images, vsepp, FAISS Flat" in out
    assert started["/api/about"]["matchers"][0]["explains"] == "occlusion"
    assert started["/api/about"]["threshold"] == 0.25
    answer = started["/api/search?q=a+red+picture"]
    assert {result["file"] for result in answer["results"]} == {f"{colour}.png" for colour in COLOURS}
    assert [result["above_threshold"] for result in answer["results"]] == [
        result["score"] >= 0.25 for result in answer["results"]
    ]
    assert len(started["/api/similar/0?k=3"]["results"]) == 3


def test_search_draws_a_line_where_nothing_fits(run, workspace):
    folder = workspace("vsepp")
    _, out, _ = run("search", "a red picture", "--k", 8)
    scores = [float(score) for score in re.findall(r"^ +\d+ +(-?\d\.\d{3})  ", out, flags=re.MULTILINE)]
    assert "nothing here fits" not in out
    middle = (scores[2] + scores[3]) / 2
    threshold = {"key": "key of vsepp", "score": middle, "slope": 1.0, "images": 8, "captions": 16}
    (folder / "results/evaluation/threshold.json").write_text(json.dumps(threshold))
    _, out, _ = run("search", "a red picture", "--k", 8)
    lines = out.splitlines()[1:]
    assert [number for number, line in enumerate(lines) if "nothing here fits" in line] == [3]
    (folder / "results/evaluation/threshold.json").write_text(json.dumps({**threshold, "key": "another"}))
    assert "nothing here fits" not in run("search", "a red picture", "--k", 8)[1]
    (folder / "results/evaluation/threshold.json").write_text("{")
    code, _, err = run("search", "a red picture")
    assert (code, "threshold.json" in err) == (2, True)
