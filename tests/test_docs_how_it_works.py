"""docs/how-it-works.md is true: its graph and its table of stages are those of the repository."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def outs(stage):
    declared = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in declared]


def inputs(stage):
    return [path for path in stage["deps"] if not path.startswith(("src/", "stages/"))]


def cell(names):
    return ", ".join(f"`{name}`" for name in names)


def test_the_graph_is_that_of_dvc():
    names = dict(re.findall(r'(node\d+)\["(\w+)"\]', PAGE))
    edges = {(names[first], names[second]) for first, second in re.findall(r"(node\d+)-->(node\d+)", PAGE)}
    expected = {
        (first, second)
        for first in STAGES
        for second in STAGES
        if set(outs(STAGES[first])) & set(inputs(STAGES[second]))
    }
    same = set(names.values()) == set(STAGES) and edges == expected
    assert same, "docs/how-it-works.md: put what `dvc dag --mermaid` prints there"


@pytest.mark.parametrize("name", STAGES)
def test_the_row_of_a_stage(name):
    stage = STAGES[name]
    expected = [stage["params"], inputs(stage), outs(stage)]
    rows = re.findall(rf"^\| {name} \|(.*)\|(.*)\|(.*)\|$", PAGE, flags=re.MULTILINE)
    found = [[set(re.findall(r"`([^`]+)`", part)) for part in row] for row in rows]
    wanted = f"| {name} | {' | '.join(map(cell, expected))} |"
    assert found == [[set(part) for part in expected]], f"docs/how-it-works.md: its names have to be those of {wanted}"
