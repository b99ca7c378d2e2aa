"""Embeddings as a source of ``crossmodal score``."""

import json

import numpy as np
import pytest

from crossmodal.evaluation.protocols import all_metrics
from crossmodal.evaluation.ranking import Pairs


@pytest.fixture
def files(tmp_path):
    """Six images and thirty captions of lengths that must not count."""
    rng = np.random.default_rng(0)
    images, captions = rng.normal(size=(6, 4)), rng.normal(size=(30, 4)) * rng.uniform(1, 9, (30, 1))
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "b.npy", captions)
    return images, captions, tmp_path


def test_embeddings_are_compared_by_the_cosine(run, files):
    images, captions, folder = files
    code, out, _ = run("score", "--images", folder / "a.npy", "--captions", folder / "b.npy", "--json")
    cosines = [[image @ text / np.linalg.norm(image) / np.linalg.norm(text) for text in captions] for image in images]
    expected = all_metrics(np.array(cosines), Pairs.of_captions(np.arange(30) // 5))
    assert code == 0
    assert json.loads(out)["rsum"] == pytest.approx(expected["rsum"])
    assert json.loads(out)["i2t"] == pytest.approx(expected["i2t"])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("b.npy", np.ones((30, 3)), "3 dimensions"),
        ("b.npy", np.zeros((30, 4)), "row 0 has the length 0"),
        ("a.npy", np.full((6, 4), np.nan), "row 0 has the length nan"),
        ("a.npy", np.ones(4), "expected real numbers, items x dimensions"),
        ("a.npy", np.array([["a"]]), "expected real numbers"),
    ],
)
def test_bad_embeddings(run, files, name, values, message):
    folder = files[2]
    np.save(folder / name, values)
    code, _, error = run("score", "--images", folder / "a.npy", "--captions", folder / "b.npy")
    assert code == 2 and message in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--images", "a.npy"],
        ["--qrels", "q"],
        ["--run", "r"],
        ["s.npy", "--images", "a.npy", "--captions", "b.npy"],
        ["--run", "r", "--qrels", "q", "--coco"],
    ],
)
def test_one_source_and_all_of_it(run, arguments):
    code, _, error = run("score", *arguments)
    assert code == 2 and "--" in error
