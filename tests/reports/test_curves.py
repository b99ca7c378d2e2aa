import csv
from dataclasses import replace

import numpy as np
import pytest
from assertions import raises_naming
from PIL import Image

from crossmodal.reports.curves import read_history, recall_rows, write_curves


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_recall_csv_against_counts_by_hand(tmp_path, results, history):
    write_curves(tmp_path / "plots", tmp_path, results, history)
    # ranks [0 2 0 5] and [0 1 0 3 2 0 1 3]; the smaller gallery holds 4 items
    assert (tmp_path / "plots" / "recall.csv").read_text() == ("k,i2t,t2i\n1,50,37.5\n2,50,62.5\n3,75,75\n4,75,100\n")


def test_recall_stops_where_the_lists_of_an_index_do(results):
    lists = replace(results, i2t_ranks=np.arange(60) % 12, t2i_ranks=np.full(300, 60), depth=12)
    assert [row["k"] for row in recall_rows(lists)] == list(range(1, 13))
    assert recall_rows(lists)[-1] == {"k": 12, "i2t": 100, "t2i": 0}


def test_training_csv(tmp_path, results, history):
    write_curves(tmp_path / "plots", tmp_path, results, history)
    rows = read(tmp_path / "plots" / "training.csv")
    assert list(rows[0]) == [
        *("epoch", "loss", "lr", "val_rsum", "val_i2t_r1", "val_t2i_r1", "val_i2t_r5", "val_t2i_r5")
    ]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["loss"] for row in rows] == ["0.1235", "0.001235", "0.00098"]
    assert [float(row["lr"]) for row in rows] == [5e-4, 2.5e-4, 1e-6]
    assert rows[1]["val_rsum"] == "250.5556"
    assert rows[1]["val_i2t_r1"] == "30.1235"


@pytest.mark.parametrize("epochs", [1, 3])
def test_plots_open_and_are_the_same_bytes_twice(tmp_path, results, history, epochs):
    history.write_text("".join(history.read_text().splitlines(keepends=True)[: 1 + epochs]))
    for folder in ("once", "twice"):
        write_curves(tmp_path / folder, tmp_path / folder, results, history)
    for name in ("recall.png", "training.png"):
        once = (tmp_path / "once" / name).read_bytes()
        assert once == (tmp_path / "twice" / name).read_bytes()
        with Image.open(tmp_path / "once" / name) as image:
            image.load()
            assert image.width >= 700
            assert "Software" not in image.info


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "train stage"),
        ("epoch,loss,lr,i2t/r1,rsum\n1,1,1,1,1\n", "t2i/r1"),
        ("epoch,loss,lr,i2t/r1,t2i/r1,rsum\n1,much,1,1,1,1\n", "much"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, text, named):
    path = tmp_path / "history.csv"
    if text is not None:
        path.write_text(text)
    with raises_naming(path, named):
        read_history(path)


def test_recall_stops_at_fifty(results):
    many = replace(results, i2t_ranks=np.arange(60), t2i_ranks=np.arange(300))
    rows = recall_rows(many)
    assert [row["k"] for row in rows] == list(range(1, 51))
    assert rows[-1] == {"k": 50, "i2t": pytest.approx(100 * 50 / 60), "t2i": pytest.approx(100 * 50 / 300)}
