"""dvc.yaml draws what the report stage writes."""

import csv
from pathlib import Path

import yaml

from crossmodal.reports.breakdown import break_down, write_breakdown
from crossmodal.reports.curves import write_curves
from crossmodal.reports.scores import write_scores

PLOTS = yaml.safe_load((Path(__file__).resolve().parents[2] / "dvc.yaml").read_text())["plots"]


def test_every_plot_finds_its_file_and_columns(tmp_path, material, history):
    plots = tmp_path / "metrics/plots"
    write_curves(plots, tmp_path, material.results, history)
    write_scores(plots, tmp_path, material.evidence, material.results)
    breakdown = break_down(material.dataset, material.split, material.results, material.regions)
    write_breakdown(plots, tmp_path, breakdown)
    drawn = set()
    for plot in PLOTS:
        ((name, settings),) = plot.items()
        ((path, columns),) = settings["y"].items()
        with (tmp_path / path).open(newline="") as file:
            header = next(csv.reader(file))
        wanted = {settings["x"], *([columns] if isinstance(columns, str) else columns)}
        assert wanted <= set(header), name
        drawn.add(Path(path).name)
    assert drawn == {path.name for path in plots.iterdir()}
