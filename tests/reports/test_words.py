import numpy as np
import pytest

from crossmodal.reports.words import WordReader, answering, words_of


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.1, 0.7, 0.1, 0.1], [(1, 1.0)]),
        ([0.5, 0.1, 0.9, 0.1, 0.1], [(2, 1.0), (0, 0.5)]),  # from the median, 0.1
        ([0.8, 0.81, 0.8, 0.805, 0.8], [(1, 1.0), (3, 0.5)]),  # cosines lie close together
        ([0.3], [(0, 1.0)]),
        ([0.2, 0.4], [(1, 1.0)]),
        ([0.0, 0.0, 0.0], []),  # takes no part
        ([0.25, 0.25, 0.25, 0.25], []),  # answered by all alike
        ([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [(6, 1.0), (7, 1.0), (8, 1.0), (9, 1.0)]),  # no more than four
    ],
)
def test_regions_that_stand_out(weights, expected):
    found = answering(np.array(weights, dtype=np.float32))
    assert [region for region, _ in found] == [region for region, _ in expected]
    assert [strength for _, strength in found] == pytest.approx([strength for _, strength in expected], abs=1e-4)


def test_pieces_of_a_word_are_one():
    text = "a zebra, t-shirt"
    spans = np.array([(0, 0), (0, 1), (2, 4), (4, 7), (7, 8), (9, 10), (10, 11), (11, 16), (0, 0)])
    words = words_of(text, spans)
    assert words == [[1], [2, 3], [4], [5], [6], [7]]


def test_a_sentence_is_its_text_in_pieces(material):
    words = WordReader(material.dataset, material.evidence)
    sentence = words.sentence(3)  # caption 1 of the split: "test-0 second"
    assert sentence.text == "test-0 second"
    assert [(piece.text, piece.word) for piece in sentence.pieces] == [
        ("test", 0), ("-", 1), ("0", 2), (" ", None), ("second", 3),
    ]  # fmt: skip
    unknown = words.sentence(0)
    assert [(piece.text, piece.word) for piece in unknown.pieces] == [("train-0 first", None)]


def test_a_word_has_the_mean_of_its_pieces(material):
    """The fixture's second region answers "sec" by 0.8 and "ond" by 0.4, the first by 0.2 and 0.6."""
    words = WordReader(material.dataset, material.evidence)
    assert words.answers(1, 3)[3] == [(1, 1.0)]
    assert words.answers(1, 3)[0] == [(0, 1.0)]
    assert words.answers(2, 3) is None
