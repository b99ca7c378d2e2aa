import csv

import numpy as np
import pytest
from PIL import Image

from crossmodal.reports.breakdown import BINS, break_down, group_edges, groups, write_breakdown


def test_groups_of_about_equal_size_hold_every_query_once():
    values = np.random.default_rng(0).poisson(11, 3000)
    edges = group_edges(values)
    assert len(edges) - 1 <= BINS and edges[0] == values.min() and edges[-1] == values.max() + 1
    found = groups(values, np.zeros(3000, dtype=int), edges)
    assert sum(group.queries for group in found) == 3000
    assert all(group.low <= group.mean <= group.high for group in found)
    assert [group.low for group in found[1:]] == [group.high + 1 for group in found[:-1]]
    assert min(group.queries for group in found) > 150


def test_recall_of_a_group_against_counts_by_hand():
    short, long = groups(np.array([3, 3, 4, 4, 9]), np.array([0, 6, 0, 20, 2]), np.array([3, 5, 10]))
    assert (short.label, short.queries, short.recall) == ("3–4", 4, (50.0, 50.0, 75.0))
    assert short.error == pytest.approx(100 * np.sqrt(0.5 * 0.5 / 4))
    assert (long.label, long.queries, long.recall) == ("9", 1, (0.0, 100.0, 100.0))


def test_of_one_length_there_is_one_group(material):
    breakdown = break_down(material.dataset, material.split, material.results, material.regions)
    assert [group.label for group in breakdown.regions["i2t"]] == ["2"]  # each image has two regions
    assert breakdown.regions["i2t"][0].recall == (50.0, 75.0, 100.0)
    assert breakdown.regions["t2i"][0].recall == (37.5, 100.0, 100.0)
    assert [(group.label, group.queries) for group in breakdown.words] == [("2–10", 8)]  # one is longer than two words


def test_files_are_the_same_bytes_twice(tmp_path, material):
    breakdown = break_down(material.dataset, material.split, material.results, material.regions)
    for folder in ("once", "twice"):
        write_breakdown(tmp_path / folder / "plots", tmp_path / folder, breakdown)
    for name in ("plots/caption_length.csv", "plots/regions.csv", "lengths.png"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    with (tmp_path / "once/plots/regions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "regions": "2", "from": "2", "to": "2", "queries": "4", "i2t_r1": "50", "i2t_r5": "75", "i2t_r10": "100",
        "captions": "8", "t2i_r1": "37.5", "t2i_r5": "100", "t2i_r10": "100",
    }  # fmt: skip
    with (tmp_path / "once/plots/caption_length.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["words"], row["queries"]) for row in rows] == [("3", "8")]  # on average
    with Image.open(tmp_path / "once/lengths.png") as image:
        image.load()
