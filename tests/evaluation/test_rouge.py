"""ROUGE-L of all pairs against a table-filling LCS written from the definition."""

import numpy as np
import pytest

from crossmodal.evaluation.rouge import rouge_l_relevance


def lcs(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, left in enumerate(a, start=1):
        for j, right in enumerate(b, start=1):
            table[i, j] = table[i - 1, j - 1] + 1 if left == right else max(table[i - 1, j], table[i, j - 1])
    return table[-1, -1]


def rouge_l(caption, references, beta=1.2):
    words = caption.lower().split(" ")
    texts = [reference.lower().split(" ") for reference in references]
    precision = max((lcs(words, text) / len(words) for text in texts), default=0)
    recall = max((lcs(words, text) / len(text) for text in texts), default=0)
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def sentences(rng, count, shortest, longest, words):
    return [
        " ".join(f"Word{word}" for word in rng.integers(0, words, rng.integers(shortest, longest + 1)))
        for _ in range(count)
    ]


@pytest.mark.parametrize(("shortest", "longest"), [(1, 20), (60, 70), (120, 150)])
def test_against_a_loop(shortest, longest):
    """Also of captions longer than one and than two 64-bit words."""
    rng = np.random.default_rng(longest)
    captions = sentences(rng, 6, shortest, longest, 25)
    references = [sentences(rng, rng.integers(0, 4), shortest, longest, 25) for _ in range(8)]
    expected = [[rouge_l(caption, texts) for texts in references] for caption in captions]
    relevance = rouge_l_relevance(captions, references)
    assert relevance.dtype == np.float32
    np.testing.assert_allclose(relevance, expected, rtol=1e-6)


def test_captions_of_more_than_255_words():
    rng = np.random.default_rng(0)
    captions = sentences(rng, 2, 300, 320, 3)
    np.testing.assert_allclose(
        rouge_l_relevance(captions, [captions]), [[rouge_l(text, captions)] for text in captions], rtol=1e-6
    )


def test_a_caption_is_a_reference_of_its_own_image():
    captions = ["A dog  runs", "two cats .", "a dog runs"]
    relevance = rouge_l_relevance(captions, [captions[:1], captions[1:]])
    assert relevance[0, 0] == relevance[1, 1] == relevance[2, 1] == 1
    assert 0 < relevance[0, 1] < 1  # the space between two spaces is a word, as in coco-caption


def test_every_word_of_a_large_vocabulary_is_another():
    """Beyond the characters of two bytes, the halves of surrogate pairs among them."""
    captions = [" ".join(f"w{number}" for number in range(start, start + 1000)) for start in range(0, 70_000, 1000)]
    relevance = rouge_l_relevance(captions, [[text] for text in captions])
    np.testing.assert_array_equal(relevance, np.eye(70, dtype=np.float32))


def test_order_of_words_counts():
    assert rouge_l_relevance(["a b c"], [["c b a"]])[0, 0] == pytest.approx(1 / 3)


def test_an_image_without_captions_has_no_relevance():
    assert rouge_l_relevance(["a b"], [[], ["a b"]]).tolist() == [[0.0, 1.0]]
