"""A gallery and the results beside it belong to one dataset: another of the same size is refused, or told apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from assertions import assert_names, raises_naming

import stages.report as report
from crossmodal.datasets.records import read_dataset, write_dataset
from crossmodal.serving.bundle import pack, unpack
from crossmodal.serving.opened import open_session
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params


def exchange(folder):
    """Put another dataset of as many images and captions in its place; the test images' captions change places."""
    dataset = read_dataset(folder)
    test = dataset.rows("test")
    records = list(dataset.records)
    for row, other in zip(test, reversed(test), strict=True):
        records[row] = replace(records[row], captions=dataset.records[other].captions)
    return write_dataset(folder, dataset.name, records)


def test_it_says_of_which_dataset(workspace, tmp_path):
    workspace("vsepp")
    manifest = json.loads(Path("data/dataset/manifest.json").read_text())
    assert json.loads(Path("results/evaluation/gallery.json").read_text())["dataset"] == manifest["sha256"]
    pack(Path("results/evaluation"), Path("params.yaml"), Folders(), tmp_path / "bundle", 1.0)
    assert unpack(tmp_path / "bundle").info.dataset != manifest["sha256"]  # without objects and other splits


def test_of_a_former_version_it_is_believed(workspace):
    workspace("vsepp")
    path = Path("results/evaluation/gallery.json")
    info = json.loads(path.read_text())
    del info["dataset"]
    path.write_text(json.dumps(info))
    exchange(Path("data/dataset"))
    assert len(SearchSession(path.parent, load_params(), Folders()).find_images("a red picture", 3)) == 3


def test_another_dataset_of_as_many_items_is_refused(workspace, run, tmp_path):
    workspace("vsepp")
    digest = exchange(Path("data/dataset"))
    named = ("results/evaluation", "data/dataset", digest[:8])
    with raises_naming(*named):
        SearchSession(Path("results/evaluation"), load_params(), Folders())
    for command in (
        ["register"],
        ["export", "--format", "trec", "out"],
        ["export", "--format", "clip_benchmark", "out"],
    ):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert_names(err, *named)
        assert not Path("out").exists()


def test_so_it_is_by_the_report(workspace, capsys):
    workspace("vsepp")
    digest = exchange(Path("data/dataset"))
    with pytest.raises(SystemExit) as end:
        report.main()
    assert end.value.code == 2
    assert_names(capsys.readouterr().err, "results/evaluation", "data/dataset", digest[:8])


def test_so_it_is_where_another_matcher_encodes_it(workspace, tmp_path):
    workspace("vsepp")
    exchange(Path("data/dataset"))
    with raises_naming("results/evaluation", "data/dataset"):
        open_session(None, "scan", load_params(), tmp_path / "scratch")


def test_its_metrics_are_not_in_a_card(workspace, run):
    workspace("vsepp")
    exchange(Path("data/dataset"))
    code, out, _ = run("export", "--format", "hub", "shared")
    assert code == 0
    assert_names(out.splitlines()[0], "results/evaluation", "data/dataset")
    assert not Path("shared/metrics.json").exists()
