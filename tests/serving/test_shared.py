"""A matcher that is shared as a folder or on the hub reads and searches as the pipeline that it comes from."""

import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, constants
from safetensors import safe_open

from crossmodal.commands.search import LOADING
from crossmodal.serving.opened import open_session
from crossmodal.settings.params import load_params
from crossmodal.sharing.model_card import without_paths

COMMIT = "a" * 40


@pytest.fixture
def shared(run, workspace, tmp_path):
    """Export the matcher of a name; its folder, and what its own pipeline finds in eight photographs."""

    def _shared(name):
        folder = workspace(name)
        shutil.copytree("data/dataset/images", tmp_path / "photographs")
        assert run("export", "--format", "hub", tmp_path / "shared")[0] == 0
        assert run("embed", tmp_path / "photographs", "--out", tmp_path / "own")[0] == 0
        code, found, _ = run("search", "nothing but lime <b>", "--in", tmp_path / "own")
        assert code == 0
        return tmp_path / "shared", lines_of(found), folder

    return _shared


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that holds nothing but a params.yaml, whose settings of features are others."""

    def _elsewhere(folder):
        settings = yaml.safe_load((folder / "params.yaml").read_text())
        settings["regions"] |= {"backend": "torchvision", "precision": "bf16"}
        settings["captions"] |= {"max_tokens": 4, "encoder": "bigru"}
        there = tmp_path / "elsewhere"
        there.mkdir()
        (there / "params.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.chdir(there)
        monkeypatch.setenv("DVC_ROOT", str(there))
        return there

    return _elsewhere


def lines_of(printed):
    """Results, without the first line, which has the milliseconds."""
    return printed.splitlines()[1:]


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_it_searches_elsewhere_as_at_home(run, shared, elsewhere, tmp_path, name):
    folder, expected, home = shared(name)
    elsewhere(home)
    shutil.rmtree(home)
    code, out, err = run("embed", tmp_path / "photographs", "--out", "gallery", "--matcher", folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith(f"--in gallery --matcher {folder}")
    own, found = (np.load(path / "embeddings.npy") for path in (tmp_path / "own", tmp_path / "elsewhere/gallery"))
    np.testing.assert_array_equal(found, own)
    code, out, err = run("search", "nothing but lime <b>", "--in", "gallery", "--matcher", folder)
    assert (code, err) == (0, LOADING)
    assert len(expected) == 8
    assert lines_of(out) == expected
    served = open_session(tmp_path / "elsewhere/gallery", str(folder), load_params(), tmp_path / "scratch")
    scores = [result.score for result in served.find_images("nothing but lime <b>", 8)]
    np.testing.assert_allclose(scores, [float(line.split()[1]) for line in expected], atol=6e-4)


def test_what_is_in_it(shared, tmp_path):
    folder, _, _ = shared("vsepp")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = {f"{name}/model.safetensors" for name in ("matcher", "bert", "detector")}
    assert weights | {"README.md", "crossmodal.json", "metrics.json", "matcher/config.json"} <= files
    assert {name.rpartition(".")[2] for name in files} == {"md", "json", "safetensors"}
    for name in weights:
        with safe_open(folder / name, "pt") as file:
            assert file.keys()
    for name in files - weights:
        assert str(tmp_path) not in (folder / name).read_text()  # grid.weights is a file of this machine


def test_the_hub_reads_the_metrics_of_its_card(shared):
    folder, _, home = shared("vsepp")
    card = ModelCard.load(folder / "README.md")
    metrics = json.loads((home / "results/evaluation/metrics.json").read_text())
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    expected = {f"{way}_{name}": metrics[way][name] for way in ("i2t", "t2i") for name in ("r1", "r5", "r10")}
    assert found == pytest.approx(expected | {"rsum": metrics["rsum"]}, abs=0.005)
    assert card.data.license == "other"
    assert card.data.tags[-1] == "vsepp"  # trained by no pipeline


def test_metrics_of_another_matcher_are_not_in_its_card(run, workspace, tmp_path):
    folder = workspace("vsepp")
    shutil.rmtree(folder / "results/evaluation")
    shutil.copytree(folder / "evaluation of scan", folder / "results/evaluation")
    code, out, _ = run("export", "--format", "hub", tmp_path / "shared")
    assert code == 0
    assert "is not of this matcher" in out
    assert not (tmp_path / "shared/metrics.json").exists()
    assert ModelCard.load(tmp_path / "shared/README.md").data.eval_results is None


def test_folders_of_a_machine_are_cut_to_their_last_part():
    settings = {"grid": {"weights": "/home/me/resnet.safetensors", "model": "resnet50"}, "bert": {"source": "~/b"}}
    assert without_paths(settings) == {
        "grid": {"weights": "resnet.safetensors", "model": "resnet50"},
        "bert": {"source": "b"},
    }


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


DAMAGES = {
    "crossmodal.json: ": lambda folder: (folder / "crossmodal.json").write_text("{"),
    "crossmodal.json: not found": lambda folder: (folder / "crossmodal.json").unlink(),
    "key 'of others'": lambda folder: change(folder / "crossmodal.json", key="of others"),
    "evil": lambda folder: change(folder / "crossmodal.json", settings={"evil": 1}),
    "version": lambda folder: change(folder / "crossmodal.json", version=2),
    "matcher/config.json": lambda folder: (folder / "matcher/config.json").unlink(),
    "matcher/model.safetensors": lambda folder: (folder / "matcher/model.safetensors").write_bytes(b"\x80\x04N."),
    "detector/": lambda folder: (folder / "detector/model.safetensors").write_bytes(b"PK\x03\x04"),
    "detector/config.json": lambda folder: shutil.rmtree(folder / "detector"),
}


@pytest.mark.parametrize("expected", DAMAGES)
def test_a_damaged_folder_is_one_line(run, workspace, tmp_path, expected):
    workspace("vsepp")
    assert run("export", "--format", "hub", tmp_path / "shared")[0] == 0
    DAMAGES[expected](tmp_path / "shared")
    code, out, err = run("embed", "data/dataset/images", "--out", "gallery", "--matcher", tmp_path / "shared")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a snapshot of one model needs; ``folder`` of the server holds it."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(self.path)
        path, files = self.path.partition("?")[0], self.server.folder
        names = [file.relative_to(files).as_posix() for file in files.rglob("*") if file.is_file()]
        if path.startswith("/api/models/someone/matcher/tree/"):
            rows = [{"type": "file", "oid": "1" * 40, "path": n, "size": (files / n).stat().st_size} for n in names]
            return self.answer(json.dumps(rows).encode())
        if path.startswith("/api/models/someone/matcher"):
            content = {"id": "someone/matcher", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return self.answer(json.dumps(content).encode())
        for revision in (COMMIT, "main"):
            prefix = f"/someone/matcher/resolve/{revision}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in names:
                return self.answer((files / path.removeprefix(prefix)).read_bytes())
        return self.answer(b"", 404)

    def answer(self, body, status=200):
        self.send_response(status)
        for name, value in {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{len(body):040d}"',
            "Content-Length": len(body),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.requests, server.folder = [], tmp_path / "shared"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def test_it_is_read_from_the_hub_and_pickles_stay_there(run, shared, elsewhere, hub, tmp_path):
    folder, expected, home = shared("vsepp")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    (folder / "evil.py").write_text("raise SystemExit(3)")
    elsewhere(home)
    for name in ("someone/matcher", f"someone/matcher@{COMMIT}"):
        code, out, err = run("search", "nothing but lime <b>", "--in", tmp_path / "own", "--matcher", name)
        assert (code, err) == (0, LOADING)
        assert lines_of(out) == expected
    fetched = [path for path in hub.requests if "/resolve/" in path]
    assert fetched
    assert not [path for path in fetched if path.endswith((".bin", ".py"))]


def test_a_name_that_the_hub_does_not_have_is_one_line(run, workspace, hub):
    workspace("vsepp")
    for name, expected in (("someone/else", "nor available from the hub"), ("a/b/c", "no hub's name")):
        code, out, err = run("search", "lime", "--matcher", name)
        assert (code, out) == (2, "")
        err = err.removeprefix(LOADING)
        assert err.startswith(f"error: matcher {name}: ")
        assert err.count("\n") == 1
        assert expected in err
