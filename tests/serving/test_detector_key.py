"""A gallery whose regions another detector of the same size found is not encoded or asked by photographs."""

import json
import shutil
from pathlib import Path

import pytest
from assertions import raises_naming
from safetensors.torch import load_file, save_file

from crossmodal.serving.embed import embed
from crossmodal.serving.embedding.record import detector_key
from crossmodal.serving.opened import open_session
from crossmodal.serving.session import Folders
from crossmodal.settings.params import load_params


def make_another(detector):
    """Change a network's weights, not its size; returns its former key."""
    former, path = detector_key(detector), detector / "model.safetensors"
    save_file({name: 1.5 * value for name, value in load_file(path).items()}, path)
    assert detector_key(detector) != former
    return former


@pytest.fixture
def gallery(workspace):
    """Photographs embedded by scan, with their regions."""
    workspace("scan")
    embed("data/dataset/images", Path("gallery"), load_params(), Folders())
    return Path("gallery")


def test_a_key_is_of_what_reads_photographs(workspace, tmp_path):
    workspace("scan")
    copy = shutil.copytree("models/detector", tmp_path / "elsewhere")
    (copy / "metrics.json").write_text("{}")
    assert detector_key(copy) == detector_key(Path("models/detector")) != ""
    assert detector_key(tmp_path / "none") == ""


def test_another_matcher_encodes_regions_of_its_detector_alone(gallery, tmp_path):
    assert open_session(gallery, "vsepp", load_params(), tmp_path / "0").find_images("a red picture", 3)
    former = make_another(Path("models/detector"))
    found = detector_key(Path("models/detector"))
    with raises_naming("gallery", former, "models/detector", found):
        open_session(gallery, "vsepp", load_params(), tmp_path / "1")
    content = json.loads((gallery / "embed.json").read_text())
    assert content.pop("detector") == former
    (gallery / "embed.json").write_text(json.dumps(content))  # as former versions wrote it: size alone is compared
    assert open_session(gallery, "vsepp", load_params(), tmp_path / "2").find_images("a red picture", 3)


def test_a_shared_matcher_with_a_detector_of_its_own_is_refused(run, gallery, tmp_path):
    shutil.copytree("vsepp", "models/of vsepp")
    shared = tmp_path / "shared"
    assert run("export", "--format", "hub", "--matcher", "models/of vsepp", shared)[0] == 0
    ours = open_session(gallery, "vsepp", load_params(), tmp_path / "0").find_images("a red picture", 8)
    theirs = open_session(gallery, str(shared), load_params(), tmp_path / "1").find_images("a red picture", 8)
    assert [(hit.item, hit.score) for hit in theirs] == [(hit.item, hit.score) for hit in ours]
    make_another(shared / "detector")
    with raises_naming("gallery", str(shared / "detector"), detector_key(Path("models/detector"))):
        open_session(gallery, str(shared), load_params(), tmp_path / "2")


def test_a_photograph_is_not_read_by_another_detector(workspace, tmp_path):
    workspace("vsepp")
    embed("data/dataset/images", Path("gallery"), load_params(), Folders())
    session = open_session(Path("gallery"), None, load_params(), tmp_path / "0")
    photograph = sorted(Path("data/dataset/images").iterdir())[2]
    hits = session.by_photograph(photograph, 1, images=True).found
    assert (hits[0].item, hits[0].score) == (2, pytest.approx(1, abs=1e-5))
    make_another(Path("models/detector"))
    other = open_session(Path("gallery"), None, load_params(), tmp_path / "1")
    assert other.find_images("a red", 8) == session.find_images("a red", 8)
    assert not other.takes_photographs
    with raises_naming("gallery", "models/detector"):
        other.by_photograph(photograph, 1, images=True)
