"""``crossmodal plots``: what is said and drawn of the curves of two commits."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from git_commands import git

PLOTS = [
    {
        "recall": {
            "title": "Recall",
            "x": "k",
            "y": {"plots/recall.csv": ["i2t", "t2i"]},
            "x_label": "K",
            "y_label": "R@K (%)",
        }
    },
    {"loss": {"title": "Loss", "x": "epoch", "y": {"plots/loss.csv": "loss"}, "x_label": "epoch", "y_label": "loss"}},
]


def write(recall=10.0, epochs=3):
    losses = "".join(f"{epoch},{9 / epoch}\n" for epoch in range(1, epochs + 1))
    Path("plots/recall.csv").write_text(f"k,i2t,t2i\n1,{recall},5\n2,20,6\n5,80,40\n")
    Path("plots/loss.csv").write_text(f"epoch,loss\n{losses}")


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plots").mkdir()
    Path("dvc.yaml").write_text(yaml.safe_dump({"plots": PLOTS}))
    write()
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "base")


def tables(out):
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in re.findall(r"(?m)((?:^\|.*\n?)+)", out)
    ]


def lines(out):
    """Numbers of the lines of each chart."""
    charts = re.findall(r"```mermaid\n(.*?)```", out, flags=re.DOTALL)
    return [[np.array(eval(line)) for line in re.findall(r"line (\[.*\])", chart)] for chart in charts]


def test_unchanged_curves_are_named(run):
    code, out, err = run("plots", "main")
    assert (code, out, err) == (0, "Unchanged: Recall; Loss.\n", "")


def test_a_changed_curve_is_a_table_and_a_chart(run):
    write(recall=4.0)
    code, out, _ = run("plots")
    assert code == 0
    assert out.rstrip().endswith("Unchanged: Loss.")
    (table,) = tables(out)
    assert table[0] == ["K", "i2t, `main`", "i2t, now", "t2i, `main`", "t2i, now"]
    assert table[2:] == [
        ["1", "10", "4", "5", "5"],
        ["2", "20", "20", "6", "6"],
        ["5", "80", "80", "40", "40"],
    ]
    ((base, now, *_),) = lines(out)
    assert base[0] == 10 and now[0] == 4
    at_two = np.linspace(1, 5, len(base)) == 2
    assert at_two.sum() == 1, "one of the points is at K = 2"
    assert base[at_two] == now[at_two] == 20
    assert base[-1] == now[-1] == 80


def test_curves_of_another_length(run):
    write(epochs=30)
    ((base, now),) = lines(run("plots")[1])
    assert len(base) == len(now)
    assert base[-1] == now[-1] == 3, "the charts end where the shorter line ends"


def test_a_loss_that_diverged(run):
    """Mermaid takes no nan; the table says it."""
    Path("plots/loss.csv").write_text("epoch,loss\n1,9\n2,4.5\n3,nan\n")
    code, out, _ = run("plots")
    assert code == 0
    assert tables(out)[0][-1] == ["3", "3", "nan"]
    ((base, now),) = lines(out)
    assert np.isfinite(base).all() and np.isfinite(now).all()
    assert "nan" not in out.partition("```")[2].partition("```")[0]
    git("commit", "-qam", "diverged")
    assert run("plots", "HEAD")[1] == "Unchanged: Recall; Loss.\n"
    Path("plots/loss.csv").write_text("epoch,loss\n1,nan\n2,nan\n3,nan\n")
    code, out, _ = run("plots")
    assert (code, lines(out)) == (0, [])
    assert tables(out)[0][-1] == ["3", "nan", "nan"]


def test_points_at_equal_distances_are_drawn_as_they_are(run):
    write()
    Path("plots/loss.csv").write_text("epoch,loss\n1,9\n2,1\n3,7\n")
    ((base, now),) = lines(run("plots")[1])
    assert base.tolist() == [9, 4.5, 3]
    assert now.tolist() == [9, 1, 7]
