"""``crossmodal doctor``: it finds what is there and what is not, says what to do, and never ends in a traceback."""

import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml
from dvc.repo import Repo  # before any test: its log keeps to the stdout that it finds

from crossmodal.datasets.records import ImageRecord, write_dataset
from crossmodal.doctor import checks, dvc_checks
from crossmodal.doctor.findings import Finding
from crossmodal.files.checked_json import write_json
from crossmodal.settings.derived import settings_in_use
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def doctor(tmp_path, monkeypatch, run):
    """Run it in a folder of its own; nothing leaves this machine unless ``addresses`` says what answers there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "check_machine", lambda params: [Finding("", "GPU", "none")])
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**11))
    monkeypatch.setattr(dvc_checks, "check_stages", lambda: [Finding("get", "download", "has not run here")])
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    asked = []

    def _doctor(*arguments, addresses=None):
        def head(url, timeout, allow_redirects):
            asked.append(url)
            if url not in (addresses or {}):
                raise requests.ConnectionError
            response = requests.Response()
            response.status_code, response.raw = addresses[url], io.BytesIO()
            return response

        monkeypatch.setattr(checks.requests, "head", head)
        code, out, err = run("doctor", *arguments)
        assert "Traceback" not in out + err
        return code, re.sub(" +", " ", out), err

    _doctor.asked = asked
    return _doctor


COCO = ("-S", "dataset=coco", "-S", "bert.source=fit", "-S", "regions.backend=torchvision")
CAPTIONS = "https://github.com/Delphboy/karpathy-splits/raw/main/dataset_coco.json"
IMAGES = "http://images.cocodataset.org/zips"


def test_scenes_need_nothing(doctor):
    code, out, err = doctor()
    assert (code, err) == (0, "")
    assert "dataset scenes, model tern, regions torchvision, captions bert (fit)" in out
    assert "made by the pipeline" in out
    assert out.endswith("next: dvc repro\n")
    assert doctor.asked == []


def test_coco_is_had_from_its_addresses(doctor, tmp_path):
    downloads = tmp_path / ".resume/downloads"
    downloads.mkdir(parents=True)
    (downloads / "train2014.zip.part-00000000").write_bytes(bytes(1_500_000))
    (downloads / "dataset_coco.json").write_bytes(bytes(2_000))
    code, out, _ = doctor(*COCO, addresses={f"{IMAGES}/train2014.zip": 200, f"{IMAGES}/val2014.zip": 200})
    assert code == 0
    assert f"ok dataset_coco.json 2.0 kB in {downloads}\n" in out
    assert f"part train2014.zip 1.5 MB of about 13.5 GB, from {IMAGES}/train2014.zip\n" in out
    assert f"to do val2014.zip about 6.6 GB, from {IMAGES}/val2014.zip\n" in out
    assert "20.2 GB to download and 20.2 GB to unpack" in out
    assert out.splitlines()[-1] == f"next: dvc exp run {' '.join(COCO)}"


def test_nothing_answers(doctor):
    code, out, _ = doctor(*COCO, addresses={CAPTIONS: 404, f"{IMAGES}/val2014.zip": 200})
    assert code == 1
    assert "github.com: HTTP 404; cs.stanford.edu: host not reachable" in out
    assert f"train2014.zip: get it from {IMAGES}/train2014.zip on another machine" in out
    assert out.splitlines()[-1] == f"next: do what is said above, then: crossmodal doctor {' '.join(COCO)}"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["regions.backend=grid", "grid.weights=mine"], "grid.weights"),
        (["regions.backend=precomputed", "precomputed.path=mine"], "precomputed.path"),
        (["captions.encoder=bigru", "captions.vocabulary=mine"], "captions.vocabulary"),
        (["bert.captions=mine"], "bert.captions"),
    ],
)
def test_files_that_settings_name(doctor, tmp_path, settings, key):
    overrides = [argument for setting in settings for argument in ("-S", setting)]
    code, out, _ = doctor(*overrides)
    assert code == 1
    assert f"FIX {key} {tmp_path / 'mine'}: not there\n" in out
    assert f"{key}: fix {key}\n" in out
    (tmp_path / "mine").touch()
    code, out, _ = doctor(*overrides)
    assert code == 0
    assert f"ok {key} {tmp_path / 'mine'}\n" in out
    assert doctor.asked == []


def test_weights_of_other_settings_do_not_count(doctor, tmp_path, monkeypatch):
    """models/bert of scenes, which was fitted, is no bert-base-uncased."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: None)
    shutil.copy(ROOT / "dvc.lock", tmp_path)
    (tmp_path / "models/bert").mkdir(parents=True)
    (tmp_path / "models/detector").mkdir()
    settings = ("-S", "dataset=folder", "-S", f"folder.images={tmp_path}", "-S", f"folder.captions={tmp_path}")
    code, out, _ = doctor(*settings)
    assert code == 1
    assert "FIX grid.weights timm/resnet50.a1_in1k is not in the cache of this machine" in out
    assert "FIX bert.source bert-base-uncased is not in the cache of this machine" in out
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    params = load_params(Path("params.yaml"))
    for stage, content in settings_in_use(params.model_copy(update={"dataset": "folder"})).items():
        write_json(tmp_path / "written.json", content)
        digest = hashlib.md5((tmp_path / "written.json").read_bytes()).hexdigest()
        file = next(dep for dep in lock["stages"][stage]["deps"] if dep["path"] == f"data/settings/{stage}.json")
        file["md5"] = digest
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    assert "weights none from a hub" in doctor(*settings)[1]


FLICKR = ("-S", "dataset=flickr8k", "-S", "bert.source=fit", "-S", "regions.backend=torchvision")


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"flickr8k": {"max_images": 6000}}, True),
        ({"download.mirror": "/elsewhere"}, True),
        ({"dataset": "scenes", "flickr8k": None}, True),
    ],
)
def test_files_of_a_dataset_of_other_settings_are_needed(doctor, tmp_path, changes, needed):
    """It is there, and the download stage would make it again."""
    section = yaml.safe_load(Path("params.yaml").read_text())["flickr8k"]
    locked = {"dataset": "flickr8k", "download.mirror": None, "download.max_bad": 10, "flickr8k": section}
    other = changes.get("flickr8k", {})
    locked |= changes | {"flickr8k": None if other is None else section | other}
    lock = {"schema": "2.0", "stages": {"download": {"cmd": "", "params": {"params.yaml": locked}}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    folder = tmp_path / "data/dataset"
    folder.mkdir(parents=True)
    write_dataset(folder, "flickr8k", [ImageRecord("0", "images/0.jpg", "test", 4, 4, ("c",))])
    code, out, _ = doctor(*FLICKR)
    assert ("its files are not needed again" in out) == (not needed)
    assert ("FIX" in out, code) == (needed, int(needed))  # no address answers
    Path("dvc.lock").unlink()
    assert "its files are not needed again" not in doctor(*FLICKR)[1]


def test_stages_as_dvc_sees_them():
    """In this repository, without the mocks."""
    findings = dvc_checks.check_stages()
    assert {finding.what for finding in findings} == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert {finding.state for finding in findings} <= {"ok", "get"}


def test_damaged_files_of_the_cache(doctor, tmp_path):
    """Among objects by the MD5 of their content, one that has changed by a bit, of an out and of nobody's."""
    Repo.init(tmp_path, no_scm=True).close()
    folder = tmp_path / ".dvc/cache/files/md5"

    def keep(content, suffix=""):
        digest = hashlib.md5(content).hexdigest()
        path = folder / digest[:2] / f"{digest[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path, digest

    shard, digest = keep(b"features")
    listing = json.dumps([{"md5": digest, "relpath": "00000.h5"}]).encode()
    other, _ = keep(b"of a former run")
    listed = keep(listing, ".dir")[1]
    lock = {"schema": "2.0", "stages": {"regions": {"cmd": "python -m stages.regions"}}}
    lock["stages"]["regions"]["outs"] = [{"path": "data/regions", "hash": "md5", "md5": f"{listed}.dir", "size": 8}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    code, out, err = doctor("--cache")
    assert (code, err) == (0, "")
    assert "ok cache 3 files" in out
    shard.write_bytes(b"featurez")
    other.write_bytes(b"")
    code, out, _ = doctor("--cache")
    assert code == 1
    shard, other = (path.relative_to(tmp_path) for path in (shard, other))
    assert f"{shard}: rm -f {shard} && dvc repro --force --single-item regions\n" in out
    assert f"{other}: rm -f {other} (of a former run)\n" in out
    assert out.count("FIX ") == 2
    assert "cache" not in doctor()[1].split("stages")[1]
