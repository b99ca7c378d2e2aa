"""``crossmodal score``: figures of the published fixture, every way to say whose captions they are, bad files."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from assertions import assert_names

from crossmodal.evaluation.protocols import all_metrics, fold_metrics
from crossmodal.evaluation.ranking import Pairs

FIXTURE = Path(__file__).resolve().parents[1] / "reference" / "fixtures" / "metrics.npz"
FIVE = ("r1", "r5", "r10", "medr", "meanr")


@pytest.fixture
def published(tmp_path):
    """The fixture's arrays, similarity and relevance saved on their own."""
    data = dict(np.load(FIXTURE))
    for name in ("similarity", "relevance"):
        np.save(tmp_path / f"{name}.npy", data[name])
    return data, tmp_path


@pytest.fixture
def matrix(tmp_path):
    """Save an array; its path."""

    def _save(values, name="similarity.npy", **options):
        np.save(tmp_path / name, values, **options)
        return tmp_path / name

    return _save


def test_json_of_the_published_fixture(run, published):
    data, folder = published
    code, out, _ = run("score", folder / "similarity.npy", "--relevance", folder / "relevance.npy", "--json")
    metrics = json.loads(out)
    assert code == 0
    assert set(metrics) == {"i2t", "t2i", "rsum", "images", "captions"}
    for direction in ("i2t", "t2i"):
        np.testing.assert_allclose([metrics[direction][key] for key in FIVE], data[direction], atol=1e-5)
        assert metrics[direction]["ndcg25"] == pytest.approx(data[f"ndcg25_{direction}"].mean(), abs=1e-5)
    assert metrics["rsum"] == pytest.approx(data["i2t"][:3].sum() + data["t2i"][:3].sum())


@pytest.mark.parametrize("dtype", [">f4", "f2", "i8", "u1", "?"])
def test_any_real_numbers(run, matrix, dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 9, (6, 30)).astype(dtype)
    metrics = json.loads(run("score", matrix(values), "--json")[1])
    expected = all_metrics(values.astype(np.float64), Pairs.of_captions(np.arange(30) // 5))
    assert metrics == expected


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("owners.txt", "0\n0\n1\n2\n2\n2\n1\n"),
        ("owners.csv", "0,0\n0,1\n1,2\n2,3\n2,4\n2,5\n1,6\n"),
        ("any-order.txt", "2 5\n0 0\n1 6\n\n2 4\n0 1\n2 3\n1 2\n"),
    ],
)
def test_pairs_in_text(run, matrix, tmp_path, file, text):
    values = np.random.default_rng(1).normal(size=(3, 7))
    (tmp_path / file).write_text(text)
    metrics = json.loads(run("score", matrix(values), "--pairs", tmp_path / file, "--json")[1])
    assert metrics == all_metrics(values, Pairs.of_captions(np.array([0, 0, 1, 2, 2, 2, 1])))


def test_pairs_in_arrays(run, matrix):
    values = np.random.default_rng(2).normal(size=(4, 6))
    relevant = np.random.default_rng(3).random((4, 6)) < 0.4
    expected = all_metrics(values, Pairs(*np.nonzero(relevant)))
    path = matrix(np.argwhere(relevant).astype(np.int32), "pairs.npy")
    assert json.loads(run("score", matrix(values), "--pairs", path, "--json")[1]) == expected
    path = matrix(np.array([3, 3, 0, 1, 2, 2]), "owners.npy")
    metrics = json.loads(run("score", matrix(values), "--pairs", path, "--json")[1])
    assert metrics == all_metrics(values, Pairs.of_captions(np.array([3, 3, 0, 1, 2, 2])))


def test_folds_and_captions_per_image(run, matrix):
    values = np.random.default_rng(4).normal(size=(20, 40))
    _, out, _ = run("score", matrix(values), "--captions-per-image", 2, "--folds", 5, "--json")
    expected = fold_metrics(values, Pairs.of_captions(np.arange(40) // 2), 5)
    assert json.loads(out) == expected
    _, out, _ = run("score", matrix(values), "--captions-per-image", 2, "--folds", 5)
    assert out.startswith("20 images, 40 captions, mean of 5 folds\n")


def with_nan():
    values = np.zeros((4, 20), np.float32)
    values[2, 7] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_nan(), "NaN at row 2, column 7"),
        (np.zeros((4, 21)), "4 images x 21 captions: not 5 captions for each image; --captions-per-image or --pairs"),
        (np.zeros(20), r"shape (20,), expected images x captions"),
        (np.zeros((1, 5), complex), "values of type complex128, expected real numbers"),
    ],
)
def test_bad_matrices(run, matrix, values, message):
    path = matrix(values)
    code, out, error = run("score", path, "--json")
    assert (code, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1


class Trap:
    """Unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("option", [None, "--relevance", "--pairs"])
def test_python_objects_are_never_unpickled(run, matrix, tmp_path, option):
    trap = matrix(np.array([[Trap(tmp_path / "sprung")]], dtype=object), "trap.npy", allow_pickle=True)
    arguments = [trap] if option is None else [matrix(np.eye(1, 5)), option, trap]
    code, _, error = run("score", *arguments)
    assert code == 2
    assert "trap.npy: not readable as a .npy array of numbers" in error
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"not an array", b"PK\x03\x04zip"])
def test_files_that_are_no_arrays(run, tmp_path, content):
    (tmp_path / "bad.npy").write_bytes(content)
    code, _, error = run("score", tmp_path / "bad.npy")
    assert code == 2
    assert "bad.npy: not readable as a .npy array of numbers" in error


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        (np.zeros((2, 10)), "expected captions x images (10, 2); transpose it"),
        (np.full((10, 2), -0.5), "-0.5 at row 0, column 0; relevance is finite and not negative"),
        (np.where(np.arange(20).reshape(10, 2) == 13, np.nan, 1), "nan at row 6, column 1"),
    ],
)
def test_bad_relevance(run, matrix, relevance, message):
    similarity = matrix(np.random.default_rng(0).random((2, 10)))
    code, _, error = run("score", similarity, "--relevance", matrix(relevance, "relevance.npy"))
    assert code == 2
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1\n", "the images of 2 captions, the matrix has 3 captions"),
        ("0\n1\n2\n", "image 2, expected 0 to 1"),
        ("0 0\n0 0\n", "the same pair more than once"),
        ("a\nb\nc\n", "not whole numbers"),
        ("", "empty"),
    ],
)
def test_bad_pairs(run, matrix, tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    code, _, error = run("score", matrix(np.zeros((2, 3))), "--pairs", tmp_path / "pairs.txt")
    assert code == 2
    assert message in error
    assert str(tmp_path / "pairs.txt") in error


def test_judgements_of_coco_are_of_its_test_split(run, matrix, monkeypatch):
    metrics = SimpleNamespace(
        coco_ids=np.array([1, 2, 3, 4, 5]),
        coco_gts={"t2i": {number: [7] for number in range(1, 6)}},
        eccv_gts={"i2t": {7: [2]}, "t2i": {2: [7]}},
        cxc_gts={"i2t": {7: [1, 2]}, "t2i": {2: [7]}},
        pm_gts={},
    )
    monkeypatch.setitem(sys.modules, "eccv_caption", SimpleNamespace(Metrics=lambda extra_file_dir: metrics))
    path = matrix(np.array([[3.0, 5, 1, 2, 4]]))
    found = json.loads(run("score", path, "--coco", "--json")[1])
    assert found["i2t"]["eccv_r1"] == found["i2t"]["cxc_r1"] == 100
    assert found["i2t"]["r1"] == 100
    _, out, _ = run("score", path, "--coco")
    assert ["cxc_r1", "100.00", "100.00"] in [line.split() for line in out.splitlines()]
    code, _, error = run("score", matrix(np.zeros((2, 10))), "--coco")
    assert code == 2
    assert "shape (2, 10)" in error


@pytest.mark.parametrize(
    "option",
    [("--folds", 5), ("--folds", 1), ("--captions-per-image", 5), ("--coco",), ("--pairs", "x"), ("--relevance", "x")],
)
def test_what_a_run_does_not_use_is_refused(run, tmp_path, option):
    (tmp_path / "a.run").write_text("q Q0 a 1 0.5 x\n")
    (tmp_path / "a.qrels").write_text("q 0 a 1\n")
    both = ("--run", tmp_path / "a.run", "--qrels", tmp_path / "a.qrels")
    assert run("score", *both)[0] == 0
    code, out, error = run("score", *both, *option)
    assert (code, out) == (2, "")
    assert_names(error, option[0], "--run")
