"""Scores whose few gradients are made from the pairs alone, against autograd over all pairs."""

import pytest
import torch
from test_sgraf import build, data

from crossmodal.batch import Encoding
from crossmodal.losses.pair import hinge_loss
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.models.sgraf.sparse_gradients import with_sparse_gradients


def gradients(model, *, sparse, loss):
    model.zero_grad()
    regions, words = data(images=8, captions=8)
    images, captions = model.encode_regions(regions), model.encode_text(words)
    images.vectors.retain_grad()
    captions.vectors.retain_grad()
    scores = model.batch_similarity(images, [captions[:3], captions[3:]], sparse=sparse)
    loss(scores).backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return scores.detach(), found | {"images": images.vectors.grad, "captions": captions.vectors.grad}


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("training", [False, True])
def test_few_gradients_are_those_of_all_pairs(module, training):
    """Regions and words are padded; SAF in training, whose scores depend on other images, takes the other way."""
    model = build(module).train(training)

    def loss(scores):
        return hinge_loss(scores, margin=0.2, hardest=True)

    (scores, found), (expected_scores, expected) = (gradients(model, sparse=most, loss=loss) for most in (24, 0))
    torch.testing.assert_close(scores, expected_scores, atol=1e-6, rtol=0)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3, msg=name)
    assert expected["images"].any() and expected["captions"].any()


def test_padded_the_bound_of_the_hinge_is_enough():
    """Of 8 pairs at most 24 have a gradient; those that have none are filled up to it and add nothing."""
    model = build("sgr").train()
    regions, words = data(images=8, captions=8)
    results = []
    for options in ({"sparse": 24, "padded": True}, {}):
        model.zero_grad()
        sets = [model.encode_regions(regions), model.encode_text(words)]
        scores = score_matrix(model.scorer, *sets, **options)
        hinge_loss(scores, margin=0.2, hardest=True).backward()
        results.append({"scores": scores.detach()} | {name: value.grad for name, value in model.named_parameters()})
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, atol=1e-5, rtol=1e-3, msg=name)


class InnerProduct(torch.nn.Module):
    """Score of pairs whose sets are summed; ``pairs``: how many were scored at a time."""

    def __init__(self):
        super().__init__()
        self.weight, self.pairs = torch.nn.Parameter(torch.randn(3, 3)), []
        self.reasoning = torch.nn.Identity()

    def similarity_vectors(self, images, region_mask, captions):
        self.pairs.append(len(images))
        return (images.sum(dim=1) @ self.weight) * captions.sum(dim=1)

    def score(self, reasoned):
        return reasoned.sum(dim=-1)


def test_no_pair_without_a_gradient_is_computed_again():
    torch.manual_seed(0)
    images, captions, scorer = torch.randn(4, 2, 3), torch.randn(5, 3, 3), InnerProduct()
    mask = torch.tensor([[True, True, True]] * 3 + [[True, False, False]] * 2)
    captions = captions.masked_fill(~mask.unsqueeze(-1), 0)
    images.requires_grad_()
    captions.requires_grad_()
    sets = Encoding(images, torch.ones(4, 2, dtype=torch.bool)), Encoding(captions, mask)
    every = images.sum(dim=1) @ scorer.weight @ captions.sum(dim=1).T
    scores = with_sparse_gradients(every.detach(), scorer, *sets)
    assert torch.equal(scores, every)
    wanted = torch.zeros(4, 5)
    wanted[1, 0], wanted[1, 4], wanted[3, 2] = 2.0, -1.0, 0.5
    found = torch.autograd.grad(scores, [images, captions, scorer.weight], wanted)
    expected = torch.autograd.grad(every, [images, captions, scorer.weight], wanted)
    assert sum(scorer.pairs) == 3
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1] * mask.unsqueeze(-1))
    torch.testing.assert_close(found[2], expected[2])
