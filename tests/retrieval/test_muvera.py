"""MUVERA's encodings against the sums over words that they estimate, and a loop written from the equations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from assertions import raises_naming

from crossmodal.batch import Encoding
from crossmodal.inference.scoring import similarity_matrix
from crossmodal.retrieval.index import read_index
from crossmodal.retrieval.muvera import FixedEncoder, adds_words, muvera_vectors
from crossmodal.retrieval.search_split import search_split
from crossmodal.settings.evaluation import Muvera

DIM = 8


def settings(**changes):
    return Muvera(**{"repetitions": 3, "planes": 2, "dim": DIM, "seed": 0, **changes})


def sets_of(count, members, seed, dim=DIM):
    """Unit vectors (count, members, dim) of which each set has 1 to all."""
    rng = np.random.default_rng(seed)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((count, members, dim))), dim=-1)
    sizes = torch.from_numpy(rng.integers(1, members + 1, count))
    return Encoding(vectors.float(), torch.arange(members) < sizes[:, None])


def chamfer(queries, items):
    """(C, N): the sum over a query's members of the best product with an item's."""
    scores = torch.zeros(len(queries), len(items))
    for c in range(len(queries)):
        for n in range(len(items)):
            products = queries.vectors[c][queries.mask[c]] @ items.vectors[n][items.mask[n]].T
            scores[c, n] = products.max(dim=1).values.sum()
    return scores


def by_the_equations(encoder, vectors, *, item):
    """An encoding of one set (N, E), bucket by bucket."""
    parts = []
    for planes, signs in zip(encoder.planes.numpy(), encoder.signs.numpy(), strict=True):
        phi = (vectors @ planes > 0).astype(int)
        for bucket in range(2 ** planes.shape[1]):
            code = np.array([bucket >> plane & 1 for plane in range(planes.shape[1])])
            inside = [row @ signs for row, bits in zip(vectors, phi, strict=True) if (bits == code).all()]
            if not item:
                part = np.sum(inside, axis=0) if inside else np.zeros(signs.shape[1])
            elif inside:
                part = np.mean(inside, axis=0)
            else:
                part = vectors[np.argmin(np.abs(phi - code).sum(axis=1))] @ signs
            parts.append(part)
    return np.concatenate(parts) / len(encoder.planes) ** 0.5


@pytest.mark.parametrize("dim", [DIM, 3])
def test_encodings_are_those_of_the_equations(dim):
    encoder, sets = FixedEncoder(settings(dim=dim), DIM), sets_of(12, 5, seed=1)
    queries, items = encoder.queries(sets), encoder.items(sets)
    assert queries.shape == items.shape == (12, 3 * 4 * dim)
    for row in range(12):
        members = sets.vectors[row][sets.mask[row]].numpy()
        np.testing.assert_allclose(queries[row], by_the_equations(encoder, members, item=False), atol=1e-6)
        np.testing.assert_allclose(items[row], by_the_equations(encoder, members, item=True), atol=1e-6)


def test_an_item_of_one_vector_is_exact():
    """It fills every bucket, so that each word meets it."""
    items = sets_of(20, 1, seed=2)
    queries, encoder = sets_of(9, 6, seed=3), FixedEncoder(settings(planes=5), DIM)
    found = encoder.queries(queries) @ encoder.items(items).T
    torch.testing.assert_close(found, chamfer(queries, items), atol=1e-5, rtol=0)


def test_opposite_vectors_are_told_apart():
    """No plane has both on one side; the best product of x with x and -x is 1, their mean 0."""
    vector = torch.nn.functional.normalize(torch.arange(1.0, DIM + 1), dim=0)
    item = Encoding(torch.stack([vector, -vector])[None], torch.ones(1, 2, dtype=torch.bool))
    query = Encoding(vector[None, None], torch.ones(1, 1, dtype=torch.bool))
    for planes, expected in ((1, 1.0), (4, 1.0), (0, 0.0)):
        encoder = FixedEncoder(settings(planes=planes), DIM)
        assert float(encoder.queries(query) @ encoder.items(item).T) == pytest.approx(expected, abs=1e-6)


def test_without_planes_it_is_the_mean_of_all_pairs():
    queries, items = sets_of(5, 4, seed=4), sets_of(7, 6, seed=5)
    encoder = FixedEncoder(settings(planes=0), DIM)
    sums = (queries.vectors * queries.mask.unsqueeze(-1)).sum(dim=1)
    means = (items.vectors * items.mask.unsqueeze(-1)).sum(dim=1) / items.mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.queries(queries) @ encoder.items(items).T, sums @ means.T)


def test_the_estimate_comes_from_below_and_more_planes_bring_it_nearer():
    """A bucket's mean has no larger product than the best member; scores that words share are near."""
    items = sets_of(40, 10, seed=6)
    words = items.vectors[:, :4] + 0.1 * sets_of(40, 4, seed=7).vectors  # near members, which may be padding
    queries = Encoding(torch.nn.functional.normalize(words, dim=-1), items.mask[:, :4])
    exact, errors = chamfer(queries, items), []
    for planes in (0, 2, 5):
        encoder = FixedEncoder(settings(planes=planes, repetitions=40), DIM)
        found = encoder.queries(queries) @ encoder.items(items).T
        assert (found <= exact + 1e-4).all()
        errors.append(float((exact - found).mean()))
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2], errors
    own = (found.argmax(dim=1) == torch.arange(40)).float().mean()
    means = FixedEncoder(settings(planes=0), DIM)
    by_means = ((means.queries(queries) @ means.items(items).T).argmax(dim=1) == torch.arange(40)).float().mean()
    assert own > by_means


def test_projections_leave_the_estimate_where_it_was():
    queries, items = sets_of(6, 4, seed=8, dim=32), sets_of(6, 5, seed=9, dim=32)
    exact, few = (FixedEncoder(settings(planes=0, dim=dim, repetitions=3000), 32) for dim in (32, 4))
    products = [encoder.queries(queries) @ encoder.items(items).T for encoder in (exact, few)]
    torch.testing.assert_close(*products, atol=0.06, rtol=0)


def test_the_seed_decides_and_padding_does_not():
    sets = sets_of(6, 5, seed=10)
    padded = Encoding(
        torch.nn.functional.pad(sets.vectors, (0, 0, 0, 3), value=7.0), torch.nn.functional.pad(sets.mask, (0, 3))
    )
    first, again, other = (FixedEncoder(settings(seed=seed), DIM) for seed in (0, 0, 1))
    for name in ("queries", "items"):
        encoded = getattr(first, name)(sets)
        assert torch.equal(encoded, getattr(again, name)(sets))
        assert not torch.allclose(encoded, getattr(other, name)(sets))
        torch.testing.assert_close(getattr(first, name)(padded), encoded)
        torch.testing.assert_close(getattr(first, name)(sets[2:3])[0], encoded[2])
    empty = Encoding(sets.vectors[:1], torch.zeros(1, 5, dtype=torch.bool))
    assert not first.items(empty).any() and not first.queries(empty).any()


@pytest.mark.parametrize(("alignment", "expected"), [("MrSw", True), ("MrAVGw", False), ("mean", False)])
def test_sums_over_words_are_told_from_means(material, alignment, expected):
    searched = material("teran")
    searched.model.mode = alignment
    assert adds_words(searched.model, searched.encode_images(), searched.encode_captions()) is expected


@pytest.mark.parametrize("alignment", ["MrSw", "MrAVGw"])
def test_shortlists_are_the_nearest_by_the_encodings(tmp_path, material, params, alignment):
    searched = material("teran")
    searched.model.mode = alignment
    choice = params.evaluate.model_copy(
        update={"mode": "shortlist_rerank", "shortlist_by": "muvera", "shortlist": 6, "top_k": 6, "batch_size": 7}
    )
    found = search_split(searched, choice, tmp_path).results
    images, captions = muvera_vectors(searched, choice.muvera)
    assert read_index(tmp_path / "images.faiss").d == images.shape[1] == 20 * 8 * 16
    products = captions @ images.T
    for query, expected in enumerate(np.argsort(-products, axis=1)[:, :6]):
        assert set(found.t2i_top[query]) == set(expected)
    for query, expected in enumerate(np.argsort(-products.T, axis=1)[:, :6]):
        assert set(found.i2t_top[query]) == set(expected)
    scores = similarity_matrix(searched)  # random weights: one score for all but small differences
    assert np.corrcoef(products.ravel(), scores.T.ravel())[0, 1] > 0.7


def test_a_matcher_of_one_vector_an_item_has_no_encodings(tmp_path, material, params):
    choice = params.evaluate.model_copy(update={"mode": "shortlist_rerank", "shortlist_by": "muvera"})
    with raises_naming("evaluate.shortlist_by muvera", "one vector"):
        search_split(material("tern"), choice, tmp_path)


def test_a_whole_shortlist_is_exact(tmp_path, material, params):
    searched = material("sgraf")
    update = {"mode": "shortlist_rerank", "shortlist_by": "muvera", "shortlist": 48, "batch_size": 7}
    found = search_split(searched, params.evaluate.model_copy(update=update), tmp_path)
    update = {"mode": "exact_pairwise"}
    exact = search_split(replace(searched, batch_size=5), params.evaluate.model_copy(update=update), tmp_path)
    np.testing.assert_array_equal(found.results.t2i_ranks, exact.results.t2i_ranks)
    np.testing.assert_array_equal(found.results.i2t_ranks, exact.results.i2t_ranks)
