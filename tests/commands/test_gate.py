"""``crossmodal gate``: what passes, what fails, what cannot be compared; in a git repository without data or DVC."""

import json
import re
from pathlib import Path

import pytest
import yaml
from assertions import assert_names
from git_commands import git

ROOT = Path(__file__).resolve().parents[2]
TEST = {"i2t": {"r1": 24.4, "medr": 4.0}, "t2i": {"r1": 19.0}, "rsum": 300.0, "probe": {"image": 36.0}, "images": 500}
TOLERANCES = {"test": {"rsum": 10.0, "i2t.r1": 2.0, "i2t.medr": 1.0}, "detector": {"ap50": 0.02}}


@pytest.fixture
def change(tmp_path, monkeypatch):
    """A repository with branch main and clean figures; a function that changes figures and settings in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()

    def _change(test=(), detector=0.95, **settings):
        content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"gate": TOLERANCES}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(content | settings))
        (tmp_path / "metrics/test.json").write_text(json.dumps(TEST | dict(test)))
        (tmp_path / "metrics/detector.json").write_text(json.dumps({"ap50": detector}))

    _change()
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "base")
    return _change


def verdicts(out):
    """Metric to verdict, read from the Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    assert rows[0] == ["metric", "base", "now", "change", "allowed", "verdict"]
    assert all(len(row) == 6 for row in rows)
    return {row[0]: row[-1] for row in rows[2:]}


def test_nothing_changed(run, change):
    code, out, err = run("gate")
    assert (code, err) == (0, "")
    assert re.match(r".*`main` \([0-9a-f]{7}\)", out)
    assert verdicts(out) == dict.fromkeys(("test.rsum", "test.i2t.r1", "test.i2t.medr", "detector.ap50"), "same")


@pytest.mark.parametrize(
    ("figure", "value", "code", "verdict"),
    [
        ("rsum", 289.9, 1, "WORSE"),
        ("rsum", 290.0, 0, "allowed"),
        ("rsum", 400.0, 0, "better"),
        ("rsum", float("nan"), 1, "WORSE"),
        ("rsum", None, 0, "missing"),
        ("i2t.medr", 5.5, 1, "WORSE"),
        ("i2t.medr", 5.0, 0, "allowed"),
    ],
)
def test_one_figure_changed(run, change, figure, value, code, verdict):
    direction, _, name = figure.rpartition(".")
    change({direction: TEST[direction] | {name: value}} if direction else {name: value})
    found, out, _ = run("gate", "main")
    assert found == code
    assert verdicts(out)[f"test.{figure}"] == verdict
    assert (f"by more than allowed: test.{figure}." in out) == bool(code)


def test_json(run, change):
    change({"rsum": 270.25}, detector=0.9)
    code, out, _ = run("gate", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["passed"], found["comparable"], found["base"]) == (False, True, "main")
    rows = {row.pop("metric"): row for row in found["figures"]}
    assert rows["test.rsum"] == {"base": 300, "now": 270.25, "change": -29.75, "allowed": 10, "verdict": "WORSE"}
    assert rows["detector.ap50"] == {"base": 0.95, "now": 0.9, "change": -0.05, "allowed": 0.02, "verdict": "WORSE"}
    assert rows["test.i2t.r1"]["verdict"] == "same"


def test_a_commit_tag_or_branch_is_a_base(run, change):
    change({"rsum": 100.0})
    git("commit", "-qam", "worse")
    assert run("gate", "HEAD")[0] == 0
    assert run("gate", "HEAD~1")[0] == 1
    commit = git("rev-parse", "HEAD~1")
    code, out, _ = run("gate", commit)
    assert code == 1
    assert f"`{commit}`" in out


@pytest.mark.parametrize(
    ("test", "settings", "reason"),
    [
        ({}, {"model": "vsepp"}, "model was tern, is vsepp"),
        ({"images": 24}, {}, "500 test images then, 24 now"),
    ],
)
def test_another_experiment_is_not_held_against_it(run, change, test, settings, reason):
    change(test | {"rsum": 10.0}, **settings)
    code, out, _ = run("gate")
    assert code == 0
    assert out.startswith("Not comparable with `main`")
    assert reason in out
    assert set(verdicts(out).values()) == {"not compared"}


def test_a_figure_on_one_side_is_said(run, change, tmp_path):
    change(gate={"test": {"rsum": 10.0, "map": 1.0}, "detector": {"ap50": 0.02}})
    (tmp_path / "metrics/detector.json").unlink()
    path = tmp_path / "metrics/test.json"
    path.write_text(json.dumps(TEST | {"map": 0.5}))
    code, out, _ = run("gate")
    assert code == 0
    assert verdicts(out) == {"test.rsum": "same", "test.map": "new", "detector.ap50": "missing"}
    assert "Note: params.yaml: section gate is not the base's." in out


@pytest.mark.parametrize(
    ("arguments", "gate", "expected"),
    [
        (["nowhere"], TOLERANCES, ["nowhere", "git"]),
        ([], {"test": {"rsumm": 1.0}}, ["params.yaml", "gate.test.rsumm", "metrics/test.json"]),
        ([], {"test": {"rsum": -1.0}}, ["params.yaml", "gate.test.rsum", "-1.0", "0"]),
    ],
)
def test_a_mistake_is_one_line(run, change, arguments, gate, expected):
    change(gate=gate)
    code, out, err = run("gate", *arguments)
    assert (code, out) == (2, "")
    assert_names(err, *expected)


def test_a_base_that_is_no_number_has_nothing_to_lose(run, change):
    change({"rsum": float("nan")})
    git("commit", "-qam", "diverged")
    change({"rsum": 300.0})
    code, out, _ = run("gate", "HEAD")
    assert (code, verdicts(out)["test.rsum"]) == (0, "new")
