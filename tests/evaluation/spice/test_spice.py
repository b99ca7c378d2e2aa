"""SPICE of all pairs by a stand-in for its program, and by the program itself where it is."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from assertions import raises_naming

from crossmodal.errors import UserError
from crossmodal.evaluation.spice import java
from crossmodal.evaluation.spice.java import Spice
from crossmodal.evaluation.spice.relevance import graph_relevance, spice_relevance
from crossmodal.evaluation.spice.synonyms import Synonyms
from stages import relevance

ROOT = Path(__file__).resolve().parents[3]
IMAGES = [["A young girl.", "A girl stands on a court!"], ["A red car."], ["An automobile", "Two autos, and a car."]]
CAPTIONS = [text for column in IMAGES for text in column]
# a = 2, 3, 2, 1, 2 tuples of captions; b = 4, 2, 3 of images: girl is one of both captions of the first.
EXPECTED = [
    [2 * 2 / (2 + 4), 0, 0],
    [2 * 3 / (3 + 4), 0, 0],
    [0, 2 * 2 / (2 + 2), 2 * 1 / (2 + 3)],  # the car is an automobile; it is red, not two
    [0, 2 * 1 / (1 + 2), 2 * 1 / (1 + 3)],
    [0, 2 * 1 / (2 + 2), 2 * 2 / (2 + 3)],
]


def calls(folder):
    return [int(line) for line in (folder / "calls").read_text().split()]


def test_matrix(stand_in, tmp_path, capsys):
    matrix = spice_relevance(CAPTIONS, IMAGES, tmp_path / "work")
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, EXPECTED, rtol=1e-6)
    assert calls(stand_in) == [len(CAPTIONS) + len(IMAGES)]
    assert capsys.readouterr().err == ""


def test_nothing_to_find(stand_in, tmp_path):
    """A caption of punctuation has no tuples: null with an image that has none either, and 0 in the matrix."""
    images = [["..."], ["A red car."], []]
    matrix = spice_relevance(["!", "A red car."], images, tmp_path / "work")
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [0, 1, 0]])


def test_goes_on_after_a_failure(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(java, "_CHUNK", 3)
    (stand_in / "fail_at").write_text("2")
    with raises_naming("SPICE", "code 1", "java.lang.OutOfMemoryError"):
        spice_relevance(CAPTIONS, IMAGES, tmp_path / "work")
    matrix = spice_relevance(CAPTIONS, IMAGES, tmp_path / "work")
    np.testing.assert_allclose(matrix, EXPECTED, rtol=1e-6)
    assert calls(stand_in) == [3, 3, 3, 2]  # the first is not parsed again, the cut-off second is
    spice_relevance(CAPTIONS, IMAGES, tmp_path / "work")
    assert len(calls(stand_in)) == 4


def test_results_of_other_captions(stand_in, tmp_path):
    spice_relevance(CAPTIONS, IMAGES, tmp_path / "work")
    with raises_naming("000000000.json"):
        spice_relevance(CAPTIONS[:2], [CAPTIONS[:1], CAPTIONS[1:2]], tmp_path / "work")


def test_synsets(stand_in):
    synonyms = Synonyms(stand_in / "pycocoevalcap/spice/lib/Meteor-1.5.jar")
    assert synonyms.synsets("Cars ") == {1, 2, 3}
    assert synonyms.synsets("cable car") == {3}
    assert synonyms.synsets("children") == {5}
    assert synonyms.synsets("redder") == set()  # only the ending goes: redd
    assert synonyms.synsets("glass") == set()


def alike(one, other, synonyms):
    words, others = set(one.split("/")), set(other.split("/"))
    return bool(words & others) or bool(
        set().union(*map(synonyms.synsets, words)) & set().union(*map(synonyms.synsets, others))
    )


def test_against_a_loop(stand_in):
    """Of random graphs with repeated tuples, more of them than are matched at once."""
    synonyms = Synonyms(stand_in / "pycocoevalcap/spice/lib/Meteor-1.5.jar")
    rng = random.Random(0)
    words = [
        "car",
        "auto",
        "automobile",
        "cable car",
        "child",
        "kids",
        "red",
        "reds",
        "x",
        "y/car",
        "z/kids",
        *"abcdef",
    ]

    def _graph(longest):
        return [tuple(rng.choices(words, k=rng.randint(1, 3))) for _ in range(rng.randint(0, longest))]

    captions, images = [_graph(9) for _ in range(300)], [_graph(30) for _ in range(13)]
    matrix = graph_relevance(captions, images, synonyms)
    known = {pair: alike(*pair, synonyms) for pair in itertools.product(words, repeat=2)}
    for row, caption in enumerate(captions[::7]):
        for column, image in enumerate(images):
            matched = sum(
                any(
                    len(one) == len(other) and all(known[pair] for pair in zip(one, other, strict=True))
                    for other in image
                )
                for one in caption
            )
            total = len(caption) + len(image)
            assert matrix[7 * row, column] == pytest.approx(2 * matched / total if total else 0)


def test_stage(stand_in, tiny_data, monkeypatch, capsys):
    (tiny_data / "data").mkdir()
    (tiny_data / "dataset").rename(tiny_data / "data/dataset")
    monkeypatch.chdir(tiny_data)
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"relevance": {"measure": "spice"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    relevance.main()
    assert "spice of 16 captions with 8 images, in data/relevance" in capsys.readouterr().out
    # "caption 32 a" and "caption 32 b" are three objects each, and four together.
    expected = np.full((16, 8), 2 * 2 / (3 + 4))
    expected[np.arange(16), np.arange(16) // 2] = 2 * 3 / (3 + 4)
    np.testing.assert_allclose(np.load("data/relevance/test.npy"), expected, rtol=1e-6)


def test_spice_itself(tmp_path, capsys):
    """The program and its parser, as far as the results can be told by hand."""
    try:
        Spice()
    except UserError as error:
        pytest.skip(f"SPICE is not here: {error}")
    images = [["a young girl"], ["a girl"], ["an automobile"], ["two dogs sleep"]]
    matrix = spice_relevance(["A young girl.", "a girl", "a car", "a red chair"], images, tmp_path / "work")
    expected = [[1, 2 / 3, 0, 0], [2 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    assert capsys.readouterr().err == ""
