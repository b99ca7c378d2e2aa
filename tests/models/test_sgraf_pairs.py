"""SGRAF's scores of some pairs against the equations, caption after caption, with their gradients."""

import shutil
from functools import partial

import pytest
import torch
from sgraf_library import INSTRUCTIONS, use_library
from sgraf_library import random_sets as sets_of

from crossmodal.batch import Encoding
from crossmodal.models.sgraf import compiled
from crossmodal.models.sgraf.equations import PairScorer, score_by_caption
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.models.sgraf.pairs import score_candidates

FORMS = [("saf", "torch"), ("sgr", "torch"), *(("sgr", name) for name in INSTRUCTIONS)]


def random_sets(number, most, least, seed):
    return sets_of(number, most, least, 64, seed)


def scorer_of(module, sim_dim=32, dropout=0.0):
    torch.manual_seed(0)
    scorer = PairScorer(module, 64, sim_dim, steps=3, lambda_softmax=9.0, dropout=dropout)
    with torch.no_grad():
        scorer.local_map.weight.mul_(8)  # vectors that differ, so that no gradient is lost in rounding
        for parameter in scorer.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(-0.3, 0.3)
    return scorer


@pytest.fixture
def use(monkeypatch, tmp_path_factory):
    """Takes the compiled form for a processor's instructions, or torch's."""

    def use_form(form):
        if form == "torch":
            monkeypatch.setattr(compiled, "library", lambda: None)
        elif shutil.which("cc") is None:
            pytest.skip("no C compiler (cc)")
        else:
            use_library(form, monkeypatch, tmp_path_factory)

    return use_form


def with_gradients(score, scorer, images, captions, pull):
    sets = [Encoding(part.vectors.clone().requires_grad_(), part.mask) for part in (images, captions)]
    scores = score(scorer, *sets)
    leaves = [part.vectors for part in sets] + list(scorer.parameters())
    return scores.detach(), torch.autograd.grad((scores * pull).sum(), leaves, allow_unused=True)


@pytest.mark.parametrize(("module", "form"), FORMS)
@pytest.mark.parametrize(
    ("regions", "words"), [(8, 20), (2, 3), (8, 1)], ids=["sets", "one region", "captions of no word"]
)
def test_scores_and_gradients_are_those_of_the_equations(use, module, form, regions, words):
    use(form)
    images, captions = random_sets(9, regions, 2, seed=0), random_sets(11, words, 1, seed=1)
    scorer = scorer_of(module).eval()
    candidates = torch.rand(9, 11, generator=torch.Generator().manual_seed(2)) < 0.4
    pull = torch.randn(9, 11, generator=torch.Generator().manual_seed(3)) * candidates
    pull[0] = 0  # pairs that are scored and have no gradient
    made = with_gradients(partial(score_candidates, candidates=candidates), scorer, images, captions, pull)
    expected = with_gradients(score_by_caption, scorer, images, captions, pull)
    torch.testing.assert_close(made[0], expected[0] * candidates, atol=1e-6, rtol=0)
    for one, other in zip(made[1], expected[1], strict=True):
        one = torch.zeros_like(other) if one is None else one  # SGR's key biases, on which no score depends
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(("module", "form"), FORMS)
def test_where_no_score_has_a_gradient_all_gradients_are_0(use, module, form):
    """As those of a hinge whose every margin is kept."""
    use(form)
    images, captions = random_sets(3, 8, 3, seed=0), random_sets(4, 6, 2, seed=1)
    candidates, pull = torch.eye(3, 4, dtype=torch.bool), torch.zeros(3, 4)
    scorer = scorer_of(module)
    scores, gradients = with_gradients(
        lambda *parts: score_candidates(*parts, candidates), scorer, images, captions, pull
    )
    assert (scores > 0).equal(candidates)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("module", "form"), FORMS)
def test_an_image_without_a_region_and_a_vector_that_is_not_finite(use, module, form):
    use(form)
    images, captions = random_sets(4, 8, 3, seed=0), random_sets(5, 6, 2, seed=1)
    images.mask[1, 1:] = False
    images.vectors[1, 1:] = 0
    images.vectors[2, 1, 3] = torch.nan
    scorer = scorer_of(module).eval()
    made = score_candidates(scorer, images, captions, torch.ones(4, 5, dtype=torch.bool))
    assert made[2].isnan().all()
    torch.testing.assert_close(made, score_by_caption(scorer, images, captions), atol=1e-6, rtol=0, equal_nan=True)


def test_saf_normalises_over_a_captions_candidates():
    """With all pairs as published: the scores of the equations in training, and the same running statistics."""
    images, captions = random_sets(5, 8, 3, seed=0), random_sets(7, 9, 2, seed=1)
    scorer, other = scorer_of("saf").train(), scorer_of("saf").train()
    made = score_candidates(scorer, images, captions, torch.ones(5, 7, dtype=torch.bool))
    torch.testing.assert_close(made, score_by_caption(other, images, captions), atol=1e-6, rtol=0)
    score_matrix(other, images, captions)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(scorer.reasoning.norm, name), getattr(other.reasoning.norm, name))
    some = torch.zeros(5, 7, dtype=torch.bool)
    some[:3] = True
    few = score_candidates(scorer, images, captions, some)
    expected = score_by_caption(other, images[:3], captions)
    torch.testing.assert_close(few[:3], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", [form for module, form in FORMS if module == "sgr"])
@pytest.mark.parametrize(("regions", "words"), [(8, 20), (2, 3)])
def test_dropout_has_one_mask_a_caption(use, form, regions, words):
    use(form)
    images, captions = random_sets(9, regions, 2, seed=0), random_sets(11, words, 1, seed=1)
    scorer = scorer_of("sgr", dropout=0.5).train()
    candidates = torch.rand(9, 11, generator=torch.Generator().manual_seed(2)) < 0.4
    pull = torch.randn(9, 11, generator=torch.Generator().manual_seed(3)) * candidates
    torch.manual_seed(5)
    made = with_gradients(partial(score_candidates, candidates=candidates), scorer, images, captions, pull)
    torch.manual_seed(5)
    expected = with_gradients(score_by_caption, scorer, images, captions, pull)
    torch.testing.assert_close(made[0], expected[0] * candidates, atol=1e-6, rtol=0)
    for one, other in zip(made[1], expected[1], strict=True):
        one = torch.zeros_like(other) if one is None else one
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)
    plain = score_by_caption(scorer.eval(), images, captions) * candidates
    assert (made[0] - plain).abs().max() > 1e-4  # dropout counts
