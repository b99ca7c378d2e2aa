"""Unfinished work has a place that its settings and inputs determine, and outs appear whole."""

import errno
import multiprocessing
import shutil
import time
from pathlib import Path

import pytest
import torch

from crossmodal.workspace import content_key, load_state, publish, save_state, source_files, work_folder

ROOT = Path(__file__).resolve().parents[1]


def test_key_depends_on_settings_and_file_content(tmp_path):
    file = tmp_path / "input.json"
    file.write_text("a")
    key = content_key({"lr": 1, "epochs": 2}, [file])
    assert key == content_key({"epochs": 2, "lr": 1}, [file])
    assert key != content_key({"lr": 1, "epochs": 3}, [file])
    file.write_text("b")
    assert key != content_key({"lr": 1, "epochs": 2}, [file])


PIPELINE = """
stages:
  train:
    cmd: python -m stages.train
    deps: [stages/train.py, src/crossmodal/models, src/crossmodal/losses/pair.py, data/captions]
"""


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A repository with a stage that lists a folder, which has a kernel in C; the working folder."""
    for name in ("stages/train.py", "src/crossmodal/losses/pair.py", "src/crossmodal/commands/search.py",
                 "src/crossmodal/models/sgraf.py", "src/crossmodal/models/kernels.c"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"first form of {name}")
    (tmp_path / "data").mkdir()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        ("src/crossmodal/commands/search.py", True),  # half a training is not lost to an edit elsewhere
        ("src/crossmodal/models/kernels.c", False),
        ("src/crossmodal/models/sgraf.py", False),
        ("src/crossmodal/losses/pair.py", False),
        ("stages/train.py", False),
    ],
)
def test_work_goes_by_the_sources_that_dvc_lists(sources, edited, same):
    work = work_folder("train", {"lr": 1})
    (sources / edited).write_text("second form")
    assert (work_folder("train", {"lr": 1}) == work) is same


def test_every_stage_has_its_sources():
    """Of this repository: the kernel of SGRAF belongs to train, and not to download."""
    found = {stage: {path.name for path in source_files(stage, ROOT / "dvc.yaml")} for stage in ("train", "download")}
    assert {"train.py", "loop.py", "base.py"} <= found["train"]
    assert any(name.endswith(".c") for name in found["train"])
    assert not any(name.endswith(".c") for name in found["download"])


def test_publish_replaces_the_out_and_clears_the_work(tmp_path):
    work = work_folder("train", {"lr": 1})
    (work / "out").mkdir()
    (work / "out" / "new").touch()
    (work / "state.pt").touch()
    place = tmp_path / "models" / "matcher"
    place.mkdir(parents=True)
    (place / "old").touch()
    publish(work / "out", place, work)
    assert [path.name for path in place.iterdir()] == ["new"]
    assert not work.exists()


def hold(settings, started):
    work_folder("train", settings)
    started.set()
    time.sleep(30)


def test_a_second_process_with_the_same_key_waits(tmp_path):
    context = multiprocessing.get_context("fork")
    started, entered = context.Event(), context.Event()
    first = context.Process(target=hold, args=({"lr": 1}, started))
    first.start()
    assert started.wait(20)
    second = context.Process(target=hold, args=({"lr": 1}, entered))
    second.start()
    try:
        assert not entered.wait(1.5)
        first.kill()
        assert entered.wait(20)  # a killed process gives its work up
    finally:
        first.kill()
        second.kill()


@pytest.fixture
def two_disks(monkeypatch):
    """Renaming from the work folder to the outs fails, as from one disk to another."""
    rename = Path.rename

    def across(self, target):
        if ".resume" in self.parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)


def test_publish_to_another_disk(two_disks, tmp_path):
    work, place = work_folder("train", {"disk": 1}), tmp_path / "models" / "matcher"
    (work / "out").mkdir()
    (work / "out" / "new").write_text("x")
    place.mkdir(parents=True)
    (place / "old").touch()
    publish(work / "out", place, work)
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in place.parent.iterdir()] == ["matcher"]
    assert not work.exists()


def test_half_a_copy_is_no_out(two_disks, tmp_path, monkeypatch):
    """The other disk is full in the middle of the copy; when there is room the same work is published."""
    work, place = work_folder("train", {"disk": 2}), tmp_path / "models" / "matcher"
    (work / "out").mkdir()
    for name in "ab":
        (work / "out" / name).write_text(name)

    def full(source, target, **_):
        if str(source).endswith("b"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return shutil.copyfile(source, target)

    copytree = shutil.copytree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda source, target: copytree(source, target, copy_function=full))
        with pytest.raises(OSError, match="No space left"):
            publish(work / "out", place, work)
    assert not place.exists()
    publish(work / "out", place, work)
    assert sorted(path.name for path in place.iterdir()) == ["a", "b"]
    assert [path.name for path in place.parent.iterdir()] == ["matcher"]


def test_state_comes_back(tmp_path):
    assert load_state(tmp_path / "state.pt") is None
    save_state(tmp_path / "state.pt", {"epoch": 3, "weights": torch.arange(5)})
    state = load_state(tmp_path / "state.pt")
    assert state["epoch"] == 3
    assert state["weights"].tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    "size",
    [
        0,
        0.5,
    ],
)
def test_half_a_state_is_none(tmp_path, capsys, size):
    path = tmp_path / "state.pt"
    save_state(path, {"weights": torch.arange(500)})
    content = path.read_bytes()
    path.write_bytes(content[: int(size * len(content)) if 0 < size < 1 else size])
    assert load_state(path) is None
    assert not path.exists()
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path}: damaged, this starts from the beginning")
    assert warning.count("\n") == 1


def test_a_kill_leaves_no_part_of_a_former_out(tmp_path, monkeypatch):
    """Deleting a folder takes its files one by one: a kill in between must not leave some of them as the out."""
    work, place = work_folder("train", {"lr": 3}), tmp_path / "models" / "matcher"
    (work / "out").mkdir()
    place.mkdir(parents=True)
    for name in "ab":
        (place / name).touch()

    def killed(path, **_):
        for file in [file for file in Path(path).glob("*") if file.is_file()][:1]:
            file.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(work / "out", place, work)
    assert sorted(path.name for path in place.iterdir()) in ([], ["a", "b"])
