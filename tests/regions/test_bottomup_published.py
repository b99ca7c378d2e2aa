"""Published layouts of the detector's weights: written here from a random detector, they give its outputs again."""

import functools
import hashlib
import http.server
import json
import os
import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from assertions import raises_naming
from bottomup_random import SMALL, random_detector, settings
from safetensors.torch import save_file

from crossmodal.regions.bottomup.boxes import CAFFE
from crossmodal.regions.bottomup.fetch import fetch_detector
from crossmodal.regions.bottomup.folder import DetectorFolder, read_folder
from crossmodal.regions.bottomup.network import BottomUpNetwork
from crossmodal.regions.bottomup.published import read_published

BOX, RPN = "roi_heads.box_predictor.", "proposal_generator.rpn_head."


@pytest.fixture(scope="module")
def detector():
    return random_detector()


@torch.inference_mode()
def outputs(detector):
    """What the network says of random pixels, as one dict."""
    network = BottomUpNetwork(detector.architecture, CAFFE).eval()
    network.load_state_dict(detector.weights)
    pixels = 50 * torch.randn(1, 3, 60, 80, generator=torch.Generator().manual_seed(3))
    (found,) = network(pixels, 1.0)
    assert len(found.boxes) > 20
    return vars(found)


def assert_same_outputs(path, detector):
    architecture, weights = read_published(path)
    assert architecture == detector.architecture
    imported = outputs(DetectorFolder(architecture, weights, [], []))
    for name, value in outputs(detector).items():
        torch.testing.assert_close(imported[name], value, rtol=1e-4, atol=1e-4, msg=name)


def arrays(weights):
    return {name: value.numpy() for name, value in weights.items()}


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("wrapped", [True, False], ids=["model", "flat"])
def test_airsplays_pickle(tmp_path, detector, protocol, wrapped):
    content = arrays(detector.weights)
    if wrapped:
        content = {"model": OrderedDict(content), "__author__": "somebody", "matching_heuristics": True}
    path = tmp_path / "faster_rcnn_from_caffe_attr.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert_same_outputs(path, detector)


def test_the_same_layout_saved_by_torch(tmp_path, detector):
    torch.save(OrderedDict(detector.weights), tmp_path / "pytorch_model.bin")
    assert_same_outputs(tmp_path / "pytorch_model.bin", detector)
    save_file(detector.weights, tmp_path / "model.safetensors")
    assert_same_outputs(tmp_path / "model.safetensors", detector)


def milvlg_state(weights, order):
    """The state dict of MILVLG's network, which has Caffe's blobs: written from the prototxt, anchor by anchor.

    ``order`` lists (size, ratio) of the anchors as the file has them; ours go size by size.
    """
    ours = [(size, ratio) for size in range(4) for ratio in range(3)]
    random = np.random.default_rng(7)
    published = {}
    for name, value in arrays(weights).items():
        if name.startswith(f"{RPN}objectness_logits"):
            nothing = random.normal(size=value.shape).astype(np.float32)
            rows = [ours.index(anchor) for anchor in order]
            value = np.concatenate([nothing[rows], (value + nothing)[rows]])
        elif name.startswith(f"{RPN}anchor_deltas"):
            value = np.concatenate([value[4 * row : 4 * row + 4] for row in map(ours.index, order)])
        elif name.startswith(f"{BOX}bbox_pred"):
            background = random.normal(size=(4, *value.shape[1:])).astype(np.float32)
            value = value.copy()
            for coordinate, weight in enumerate((10, 10, 5, 5)):
                value[coordinate::4] /= weight
            value = np.concatenate([background, value])
        elif name.startswith((f"{BOX}cls_score", f"{BOX}cls_embedding", f"{BOX}attr_score")):
            value = np.concatenate([value[-1:], value[:-1]])
        name = name.replace("cls_embedding", "cls_embed").replace("fc_attr", "attr_linear1")
        published[name.replace("attr_score", "attr_linear2")] = torch.from_numpy(np.ascontiguousarray(value))
    for name in list(published):
        if name.endswith("running_var"):
            published[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return published


RATIO_BY_RATIO = [(size, ratio) for ratio in range(3) for size in range(4)]


@pytest.mark.parametrize("held", ["no anchors", "ratio by ratio", "size by size", "shuffled"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_milvlgs_checkpoint(tmp_path, detector, held, zipped):
    order = list(RATIO_BY_RATIO)
    if held == "size by size":
        order.sort()
    elif held == "shuffled":
        np.random.default_rng(0).shuffle(order)
        order = [tuple(map(int, anchor)) for anchor in order]
    state = milvlg_state(detector.weights, order)
    assert len(state[f"{RPN}objectness_logits.bias"]) == 24
    assert len(state[f"{BOX}bbox_pred.bias"]) == 4 * 21
    if held != "no anchors":  # Caffe's: corners are pixels around the middle of the first cell
        anchors = []
        for size, ratio in order:
            width, height = ((23, 12), (16, 16), (11, 22))[ratio]
            half = np.array([width - 1, height - 1]) * 2.0**size * 2
            anchors.append(np.concatenate([7.5 - half, 7.5 + half]))
        anchors = torch.tensor(np.array(anchors), dtype=torch.float32)
        state["proposal_generator.anchor_generator.cell_anchors.0"] = anchors
    path = tmp_path / "bua-caffe-frcn-r101-k36.pth"
    torch.save({"model": OrderedDict(state), "iteration": 1}, path, _use_new_zipfile_serialization=zipped)
    assert_same_outputs(path, detector)


def written(tmp_path, weights):
    path = tmp_path / "weights.pth"
    torch.save({"model": weights}, path)
    return path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda w: {n: v for n, v in w.items() if "res3.0.conv2.w" not in n},
            ("lacks", "'backbone.res3.0.conv2.weight'"),
        ),
        (lambda w: w | {f"{BOX}fc_attr.bias": torch.zeros(5)}, (f"'{BOX}fc_attr.bias'", "(5,)")),
        (lambda w: w | {f"{BOX}fc_attr.bias": torch.full((64,), torch.nan)}, (f"'{BOX}fc_attr.bias'", "finite")),
        (lambda w: {n: v for n, v in w.items() if "stem" not in n}, ("bottom-up",)),
    ],
)
def test_other_weights_are_named(tmp_path, detector, change, named):
    path = written(tmp_path, change(dict(detector.weights)))
    with raises_naming(f"{path}: ", *named):
        read_published(path)


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_nothing_in_a_file_is_run(tmp_path, detector, suffix):
    mark, path = tmp_path / "mark", tmp_path / f"weights{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": arrays(detector.weights) | {"more": Attack(mark)}}))
    else:
        torch.save({"model": dict(detector.weights) | {"more": Attack(mark)}}, path)
    with raises_naming(path, "system"):
        read_published(path)
    assert not mark.exists()


@pytest.fixture
def published(tmp_path, detector):
    folder = tmp_path / "published"
    folder.mkdir()
    path = folder / "faster_rcnn_from_caffe_attr.pkl"
    path.write_bytes(pickle.dumps({"model": arrays(detector.weights)}))
    return path


def write_names(folder, objects=20, attributes=7):
    folder.mkdir(exist_ok=True)
    (folder / "objects_vocab.txt").write_text("\n".join(f"Object {n},other" for n in range(objects)))
    (folder / "attributes_vocab.txt").write_text("\n".join(f"attribute {n}" for n in range(attributes)) + "\n")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_a_file_becomes_a_folder(tmp_path, out, published, detector, capsys):
    sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
    fetch_detector(settings(weights=str(published), sha256=sha256), out, tmp_path / "cache")
    read = read_folder(out)
    assert read.architecture == SMALL and read.classes == read.attributes == []
    assert (
        "no objects_vocab.txt next to the weights, bottomup.names is null: classes stay numbers"
        in capsys.readouterr().err
    )
    assert all(torch.equal(read.weights[name], value) for name, value in detector.weights.items())
    source = json.loads((out / "config.json").read_text())["source"]
    assert source == {"name": published.name, "sha256": sha256}


@pytest.mark.parametrize("beside", [True, False], ids=["beside the weights", "in a folder"])
def test_names(tmp_path, out, published, beside):
    folder = published.parent if beside else tmp_path / "names"
    write_names(folder)
    names = None if beside else "names"  # of the root of the repository, here tmp_path
    weights = str(published.relative_to(tmp_path))
    fetch_detector(settings(weights=weights, names=names), out, tmp_path / "cache")
    assert read_folder(out).classes[:2] == ["object 0", "object 1"]
    assert read_folder(out).attributes[-1] == "attribute 6"


def test_another_checksum_is_refused(tmp_path, out, published):
    found = hashlib.sha256(published.read_bytes()).hexdigest()
    with raises_naming("bottomup.weights", published, found, f"bottomup.sha256 {'0' * 64}"):
        fetch_detector(settings(weights=str(published), sha256="0" * 64), out, tmp_path / "cache")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, published):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = functools.partial(Quiet, directory=published.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_weights_from_an_address(tmp_path, out, published, server):
    address = f"{server}/{published.name}"
    fetch_detector(settings(weights=address), out, tmp_path / "cache")
    assert read_folder(out).architecture == SMALL
    assert json.loads((out / "config.json").read_text())["source"]["name"] == published.name
    published.unlink()  # the second time it is had from the cache
    fetch_detector(settings(weights=address), out, tmp_path / "cache")
