"""docs/how-it-works.md is true: its graph, its table of stages and its links are those of the repository."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def outs(stage):
    declared = [*stage.get("outs", []), *stage.get("metrics", [])]
    return {next(iter(out)) if isinstance(out, dict) else out for out in declared}


def inputs(stage):
    return {path for path in stage["deps"] if not path.startswith(("src/", "stages/"))}


def test_the_graph_is_that_of_dvc():
    """`dvc dag --mermaid` gives what has to stand there."""
    names = dict(re.findall(r'(node\d+)\["(\w+)"\]', PAGE))
    edges = {(names[first], names[second]) for first, second in re.findall(r"(node\d+)-->(node\d+)", PAGE)}
    expected = {
        (first, second) for first in STAGES for second in STAGES if outs(STAGES[first]) & inputs(STAGES[second])
    }
    assert set(names.values()) == set(STAGES)
    assert edges == expected


@pytest.mark.parametrize("name", STAGES)
def test_the_row_of_a_stage(name):
    (row,) = re.findall(rf"^\| {name} \| (.*) \| (.*) \| (.*) \|$", PAGE.replace("| |", "|  |"), flags=re.MULTILINE)
    parameters, reads, writes = (set(re.findall(r"`([^`]+)`", cell)) for cell in row)
    assert parameters == set(STAGES[name]["params"])
    assert reads == inputs(STAGES[name])
    assert writes == outs(STAGES[name])


@pytest.mark.parametrize("page", ["how-it-works.md", "adding-a-loss.md", "adding-a-model.md", "reproduction.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), f"docs/{page}: {target}"
