"""``crossmodal recipe`` and ``crossmodal reproduce``: what they print, run, and how they end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from git_commands import git

from crossmodal.commands import reproduce
from crossmodal.recipes.recipes import read_reproduction

ROOT = Path(__file__).resolve().parents[2]
SGRAF = ([77.8, 94.1, 97.4], [58.5, 83.0, 88.8])


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A repository's root with params.yaml and reproduction.yaml; regions are of a backend that is always there."""
    content = yaml.safe_load((ROOT / "reproduction.yaml").read_text())
    content["parts"]["regions"]["regions"]["backend"] = "grid"
    (tmp_path / "reproduction.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "metrics").mkdir()
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "settings")
    return tmp_path


def metrics(i2t, t2i, images=1000):
    recalls = {way: dict(zip(("r1", "r5", "r10"), values, strict=True)) for way, values in (("i2t", i2t), ("t2i", t2i))}
    return recalls | {"rsum": sum((*i2t, *t2i)), "images": images}


@pytest.fixture
def run(run, monkeypatch):
    """Run ``crossmodal``; where ``found`` is given, a pipeline stands in that leaves it as metrics/test.json.

    Exit code, stdout, stderr, and the settings that the pipeline was given.
    """

    def _run(*arguments, found=None):
        given = []

        def pipeline(overrides):
            given.extend(overrides)
            Path("metrics/test.json").write_text(json.dumps(found))

        if found is not None:
            monkeypatch.setattr(reproduce, "_run_pipeline", pipeline)
        return *run(*arguments), given

    return _run


def test_a_recipe_is_one_line_that_a_shell_splits(workspace, run):
    for name, recipe in read_reproduction().all_recipes.items():
        code, out, err, _ = run("recipe", name)
        assert code == 0
        words = out.split()
        assert out == " ".join(words) + "\n"
        assert words == [word for override in recipe.overrides() for word in ("-S", override)]
        assert bool(err) == bool(recipe.needs)
        assert not set(out) & set("'\"*?$`\\")


def test_the_published_figures_are_met(workspace, run):
    code, out, _, given = run("reproduce", "sgraf-flickr30k", "-S", "train.workers=4", found=metrics(*SGRAF))
    assert code == 0
    assert "note: train.workers" not in out
    assert "OK: rsum is 0.0 above the published 499.6, tolerance 5.0" in out
    assert "note: both models are trained" in out
    assert given[-1] == "train.workers=4"
    assert given[:-1] == read_reproduction().recipe("sgraf-flickr30k").overrides()


@pytest.mark.parametrize(("less", "expected"), [(4.9, "OK: rsum is 4.9 below"), (5.1, "no: rsum is 5.1 below")])
def test_by_how_much_not(workspace, run, less, expected):
    (first, *others), t2i = SGRAF
    code, out, _, _ = run("reproduce", "sgraf-flickr30k", found=metrics([first - less, *others], t2i))
    assert code == (0 if expected.startswith("OK") else 1)
    assert f"{expected} the published 499.6" in out


@pytest.mark.parametrize(("less", "expected"), [(0.0, "OK: the sum of R@1 and R@5 is 0.0 above"), (5.1, "no: ")])
def test_four_recalls_are_compared_where_no_more_are_published(workspace, run, less, expected):
    """Of CHAN: 80.6 + 96.1 + 63.9 + 87.5 is 328.1; whatever R@10 is."""
    found = metrics([80.6 - less, 96.1, 97.0], [63.9, 87.5, 90.0])
    code, out, _, _ = run("reproduce", "chan-bert-flickr30k", found=found)
    assert code == (1 if less else 0)
    assert expected in out
    assert "the published 328.1" in out
    header, published, this, difference = out.splitlines()[2:6]
    assert published.split() == ["published", "80.6", "96.1", "63.9", "87.5"]
    assert difference.split() == ["difference", f"{0 - less:+.1f}", "+0.0", "+0.0", "+0.0"]
    ends = [header.index("R@5") + 3, header.rindex("R@5") + 3]  # columns stay below their names
    assert [this[:end].split()[-1] for end in ends] == ["96.1", "87.5"]


def test_coco_is_compared_both_ways(workspace, run):
    recipe = read_reproduction().recipe("sgr-coco")
    both = {name: metrics(figures.i2t, figures.t2i, 5000) for name, figures in recipe.published.items()}
    code, out, _, _ = run("reproduce", "sgr-coco", found=both["all"] | {"folds": both["folds"]})
    assert code == 0
    assert re.findall(r"(?m)^(\w\w): rsum is 0.0 \w+ the published ([\d.]+)", out) == [("OK", "518.1"), ("OK", "419.6")]
    code, out, _, _ = run("reproduce", "sgr-coco", found=both["all"])
    assert code == 1
    assert re.search(r"(?m)^no: metrics/test\.json .*folds .*518\.1", out)


def test_what_it_prints_goes_into_the_file(workspace, run):
    *_, out, _, _ = run("reproduce", "sgr-flickr30k", found=metrics(*SGRAF))
    content = yaml.safe_load(Path("reproduction.yaml").read_text())
    content["recipes"]["sgr-flickr30k"] |= yaml.safe_load(out[out.index("\nours:") :])
    Path("reproduction.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    ours = read_reproduction().recipe("sgr-flickr30k").ours
    assert (ours.figures["all"].i2t, ours.figures["all"].rsum) == (tuple(SGRAF[0]), 499.6)
    assert git("rev-parse", "HEAD").startswith(ours.commit)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sgraff"], "reproduction.yaml: no recipe 'sgraff'"),
        (["sgr-coco", "-S", "train.lrr=1"], "-S: Could not override 'train.lrr'"),
    ],
)
def test_a_mistake_runs_nothing(workspace, run, arguments, expected):
    code, out, err, given = run("reproduce", *arguments, found={})
    assert (code, out, given) == (2, "", [])
    assert err.startswith(f"error: {expected}")
    assert err.count("\n") == 1


def test_changes_that_count_are_refused(workspace, run):
    def change(key, value):
        section, name = key.split(".")
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        content[section][name] = value
        (workspace / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    change("grid.image_size", 320)
    code, _, err, given = run("reproduce", "sgr-coco", found={})
    assert (code, given) == (2, [])
    assert "params.yaml: grid.image_size is 320, committed is 224, and sgr-coco does not set it" in err
    assert run("reproduce", "sgraf-flickr30k", "-S", "grid.image_size=224", found=metrics(*SGRAF))[0] == 0
    change("train.lr", 0.5)  # set by the recipe
    assert run("reproduce", "sgraf-flickr30k", found=metrics(*SGRAF))[0] == 0
    change("tern.layers", 5)  # of another model
    assert run("reproduce", "sgraf-flickr30k", found=metrics(*SGRAF))[0] == 0


@pytest.mark.slow
def test_it_runs_dvc(workspace, run, monkeypatch):
    """A pipeline of one stage, whose figures depend on its parameter, through ``dvc exp run``."""
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (workspace / "stage.py").write_text(
        "import json, sys, yaml\n"
        "if yaml.safe_load(open('params.yaml'))['train']['epochs'] != 40: sys.exit('other settings')\n"
        f"json.dump({metrics(*SGRAF)!r}, open('metrics/test.json', 'w'))\n"
    )
    stage = {"cmd": f"{sys.executable} stage.py", "params": ["train.epochs"], "deps": ["stage.py"]}
    stage["metrics"] = [{"metrics/test.json": {"cache": False}}]
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": stage}}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True, env={**os.environ})
    git("add", ".")
    git("commit", "-qm", "pipeline")
    code, out, _, _ = run("reproduce", "sgraf-flickr30k")
    assert code == 0
    assert "OK: rsum is 0.0 above the published 499.6" in out
    assert yaml.safe_load(Path("params.yaml").read_text())["sgraf"]["sim_dim"] == 256
    code, _, err, _ = run("reproduce", "sgraf-flickr30k", "-S", "train.epochs=1")
    assert code == 2
    assert "error: dvc exp run ended with exit code" in err
