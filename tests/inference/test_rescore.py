"""Leading places of a matrix that was scored in bf16, against the matrix in fp32."""

import numpy as np
import pytest

from crossmodal.inference import rescore
from crossmodal.inference.scoring import similarity_matrix
from crossmodal.retrieval import search_split


@pytest.fixture
def made(material):
    """The matcher's material, and its matrix in fp32 and in bf16, the matcher being left in bf16."""
    found = material("sgraf")
    matrices = {}
    for precision in ("fp32", "bf16"):
        for member in found.model.members():
            member.precision = precision
        matrices[precision] = similarity_matrix(found)
    assert not np.array_equal(*matrices.values())
    return found, matrices


@pytest.mark.parametrize("leading", [1, 5, 48])
def test_leading_places_are_those_of_fp32_and_others_stay(monkeypatch, made, leading):
    found, matrices = made
    monkeypatch.setattr(rescore, "LEADING", leading)
    monkeypatch.setattr(rescore, "ROW_CHUNK", 7)
    matrix = matrices["bf16"].copy()
    again = rescore.rescore_leading(found, matrix)
    leads = np.zeros(matrix.shape, dtype=bool)
    for image, row in enumerate(matrices["bf16"]):
        leads[image, np.argsort(-row)[:leading]] = True
    for caption, column in enumerate(matrices["bf16"].T):
        leads[np.argsort(-column)[:leading], caption] = True
    assert again == leads.sum()
    np.testing.assert_allclose(matrix[leads], matrices["fp32"][leads], atol=1e-6)
    np.testing.assert_array_equal(matrix[~leads], matrices["bf16"][~leads])


def test_a_matcher_in_fp32_is_left_alone(made):
    found, matrices = made
    for member in found.model.members():
        member.precision = "fp32"
    matrix = matrices["bf16"].copy()
    assert rescore.rescore_leading(found, matrix) == 0
    np.testing.assert_array_equal(matrix, matrices["bf16"])


def test_evaluation_ranks_by_what_is_rescored(tmp_path, made, params):
    found, matrices = made
    settings = params.evaluate.model_copy(update={"batch_size": 7, "top_k": 10, "mode": "exact_pairwise"})
    results = search_split.search_split(found, settings, tmp_path).results
    for scores, matrix in ((results.i2t_scores, matrices["fp32"]), (results.t2i_scores, matrices["fp32"].T)):
        np.testing.assert_allclose(scores, -np.sort(-matrix, axis=1)[:, :10], atol=1e-6)
