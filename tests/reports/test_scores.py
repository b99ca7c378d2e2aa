import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crossmodal.reports.scores import best_wrong, roc_auc, score_rows, write_scores


def test_shares_of_each_kind_in_equal_bins(evidence, results):
    rows = score_rows(evidence, results)
    assert len(rows) == 40
    for name in ("matches", "best_wrong", "non_matches"):
        assert sum(row[name] for row in rows) == pytest.approx(100)
    assert [row["score"] for row in rows] == pytest.approx(np.linspace(0, 0.9, 81)[1::2], abs=1e-6)
    assert rows[0]["non_matches"] == pytest.approx(20)  # 0.0 of five
    assert rows[-1]["matches"] == pytest.approx(25)  # 0.9 of four


def test_the_best_wrong_image_of_each_caption(results):
    """Captions 0, 2 and 5 have their own image first; in the end nothing wrong is found for caption 7."""
    assert best_wrong(results).tolist() == [0.125, 0.75, 0.125, 0.75, 0.75, 0.125, 0.75, 0.75]
    top = results.t2i_top.copy()
    top[7] = [3, -1]
    assert len(best_wrong(replace(results, t2i_top=top))) == 7


def test_roc_auc_counts_pairs(evidence):
    pairs = [(match, other) for match in evidence.matches for other in evidence.non_matches]
    expected = 100 * np.mean([1 if match > other else 0.5 if match == other else 0 for match, other in pairs])
    assert roc_auc(evidence) == pytest.approx(expected)
    same = replace(evidence, matches=np.ones(3), non_matches=np.ones(4))
    assert roc_auc(same) == 50  # constant scores separate nothing


def test_a_single_image_has_no_pair_to_tell_apart(tmp_path, evidence, results):
    alone = replace(evidence, non_matches=evidence.non_matches[:0])
    assert roc_auc(alone) is None
    write_scores(tmp_path, tmp_path, alone, results)
    assert (tmp_path / "scores.png").is_file()


def test_files_are_the_same_bytes_twice(tmp_path, evidence, results):
    for folder in ("once", "twice"):
        write_scores(tmp_path / folder / "plots", tmp_path / folder, evidence, results)
    for name in ("plots/scores.csv", "scores.png"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    with (tmp_path / "once/plots/scores.csv").open(newline="") as file:
        assert list(next(csv.reader(file))) == ["score", "matches", "best_wrong", "non_matches"]
    with Image.open(tmp_path / "once/scores.png") as image:
        image.load()
