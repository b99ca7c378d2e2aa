"""Unfinished work has a place that its settings and inputs determine, and outs appear whole."""

import multiprocessing
import time

import pytest

from crossmodal.features.resume import content_key, publish, work_folder


def test_key_depends_on_settings_and_file_content(tmp_path):
    file = tmp_path / "input.json"
    file.write_text("a")
    key = content_key({"lr": 1, "epochs": 2}, [file])
    assert key == content_key({"epochs": 2, "lr": 1}, [file])
    assert key != content_key({"lr": 1, "epochs": 3}, [file])
    file.write_text("b")
    assert key != content_key({"lr": 1, "epochs": 2}, [file])


def test_work_lies_under_the_projects_root(tmp_path):
    folder = work_folder("train", {"lr": 1})
    assert folder.is_dir()
    assert folder.parent == tmp_path / ".resume" / "train"
    assert work_folder("train", {"lr": 2}) != folder


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


@pytest.mark.parametrize("moved", ["", "sub"])
def test_publish_makes_parents(tmp_path, moved):
    work = work_folder("report", {"x": moved})
    (work / "page.html").touch()
    publish(work, tmp_path / moved / "results" / "report", work)
    assert (tmp_path / moved / "results" / "report" / "page.html").is_file()
