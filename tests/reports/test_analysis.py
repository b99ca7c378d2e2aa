import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crossmodal.datasets.records import read_dataset, write_dataset
from crossmodal.reports.analysis import CHARTS, first_result_counts, probe_kinds, rank_shares, write_analysis
from crossmodal.reports.breakdown import break_down
from crossmodal.retrieval.results import summary


def write(material, folder, roc_auc=75.0, **changes):
    folder.mkdir(exist_ok=True)
    for name in CHARTS:
        Image.new("RGB", (40, 20), "white").save(folder / name)
    breakdown = break_down(material.dataset, material.split, material.results, material.regions)
    reader = material.reader(**changes)
    shown = {"metrics": summary(reader.results), "title": "Model <on> tiny"}
    return write_analysis(folder, reader, breakdown, roc_auc=roc_auc, **shown)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_ranks_in_shares(results):
    shares = rank_shares(results)  # ranks [0 2 0 5] and [0 1 0 3 2 0 1 3]
    assert [row["label"] for row in shares] == ["1", "2–5", "6–10", "11–50", "above 50"]
    assert [row["i2t"] for row in shares] == [50, 25, 25, 0, 0]
    assert [row["t2i"] for row in shares] == [37.5, 62.5, 0, 0, 0]
    lists = replace(results, i2t_ranks=np.array([0, 2, 8, 8]), depth=5)  # 8: in no list
    assert [(row["label"], row["i2t"]) for row in rank_shares(lists)] == [("1", 25), ("2–5", 25), ("above 5", 50)]


def test_first_result_counts_right_and_wrong(results):
    top = results.t2i_top.copy()
    top[7] = -1  # nothing found
    wrong, own = first_result_counts(replace(results, t2i_top=top))
    # first places: 0 2 1 0 0 2 1 -; the captions' own images 0 0 1 1 2 2 3 3
    assert wrong.tolist() == [2, 1, 1, 0]
    assert own.tolist() == [1, 1, 1, 0]


def test_the_probe_by_kind(material):
    records = list(material.dataset.records)
    for row, kind in ((5, "relation"), (6, "relation"), (7, "attribute"), (8, "attribute")):
        records[row] = replace(records[row], id=f"probe-000{row}-{kind}-a")
    material.dataset = replace(material.dataset, records=tuple(records))
    assert probe_kinds(material.reader()) == [
        {"kind": "attribute", "pairs": 1, "text": 0.0, "image": 0.0, "group": 0.0, "captions": 50.0},
        {"kind": "relation", "pairs": 1, "text": 100.0, "image": 100.0, "group": 100.0, "captions": 100.0},
        {"kind": "all", "pairs": 2, "text": 50.0, "image": 50.0, "group": 50.0, "captions": 75.0},
    ]


def test_the_worst_come_first(material, tmp_path, read_page):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    page = read_page(text)
    found = [query["text"] for query in page.of("t2i")]
    ranks = material.results.t2i_ranks
    order = np.argsort(-ranks, kind="stable")[: (ranks > 0).sum()]
    assert len(found) == len(order) == 5
    assert all(f"right image at rank {ranks[number] + 1}" in query for number, query in zip(order, found, strict=True))
    assert ["at rank 6" in query["text"] for query in page.of("i2t")] == [True, False]
    assert len(page.of("probe")) == 1 and "1 of 2 captions right" in page.of("probe")[0]["text"]
    table = rows(tmp_path / "out/worst.csv")
    assert [row["direction"] for row in table] == ["t2i"] * 5 + ["i2t"] * 2
    assert table[0] == {
        "direction": "t2i", "query": "test-1 second", "rank": "4", "first": "test-0", "right": "test-1",
    }  # fmt: skip
    assert table[5] == {"direction": "i2t", "query": "test-3", "rank": "6", "first": "test-1 first", "right": ""}


def test_a_spreadsheet_runs_no_caption_or_name(material, tmp_path):
    formulas = ['=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1+1)", "\t=1", "＝1"]
    plain = ["a - b", "two = 2", "'quoted", "r@k"]
    records = list(material.dataset.records)
    for number, captions in enumerate(zip([*formulas, *plain][::2], [*formulas, *plain][1::2], strict=True)):
        row = number + 1 if number < 4 else 0
        records[row] = replace(records[row], captions=captions)
    records[1], records[2] = replace(records[1], id="=test-0"), replace(records[2], id="-test-1")
    records[7] = replace(records[7], id="@probe", captions=("=1+1",))
    write_dataset(material.dataset.folder, "tiny", records)
    material.dataset = read_dataset(material.dataset.folder)
    write(material, tmp_path / "out")
    tables = {name: rows(tmp_path / "out" / name) for name in ("worst.csv", "probe.csv")}
    cells = {cell for table in tables.values() for row in table for cell in row.values()}
    text = {cell for cell in cells if not re.fullmatch(r"-?[\d.]+", cell)}  # a score below zero stays a number
    assert not [cell for cell in text if cell.startswith(tuple("=+-@\t＝"))]
    assert {"'+1+cmd|' /C calc'!A0", "'@SUM(1+1)", "'\t=1", "'=test-0", "'-test-1", "'@probe", "'=1+1"} <= cells
    assert "two = 2" in cells


def test_all_is_escaped_and_nothing_is_loaded_from_outside(material, tmp_path, read_page):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    page = read_page(text)
    assert page.scripts == 1 and "Model <on>" not in text and "<script>alert" not in text
    assert [image["alt"] for image in page.pictures[: len(CHARTS)]] == list(CHARTS.values())
    assert page.links and all(value.startswith("data:image/") for _, _, value in page.links)


def test_without_misses_and_without_a_probe(material, tmp_path):
    zeros = {"t2i_ranks": np.zeros(8, dtype=int), "i2t_ranks": np.zeros(4, dtype=int), "probe": np.zeros((0, 2, 2))}
    right = np.stack([material.results.caption_image] * 2, axis=1)
    text = write(material, tmp_path / "out", **zeros, t2i_top=right).read_text(encoding="utf-8")
    for section in ("t2i", "i2t", "probe", "hubs"):
        assert f'id="{section}"' not in text and f'value="{section}"' not in text
    assert not (tmp_path / "out/worst.csv").exists() and not (tmp_path / "out/probe.csv").exists()


def test_the_probe_as_a_table(material, tmp_path):
    write(material, tmp_path / "out")
    solved, missed = rows(tmp_path / "out/probe.csv")
    assert (solved["solved"], missed["solved"]) == ("1", "0")
    assert (missed["image_a"], missed["caption_b"]) == ("probe-2", "probe-3 probed")
    assert [float(missed[name]) for name in ("a_with_a", "a_with_b", "b_with_a", "b_with_b")] == pytest.approx(
        [0.5, 0.4, 0.7, 0.6], abs=1e-4
    )
