"""SGRAF's compiled backward pass against the equations, whatever the sizes, the instructions and the threads."""

import pytest
import torch
import torch.nn.functional as F
from sgraf_library import INSTRUCTIONS, needs_compiler, random_sets, use_library

from crossmodal.batch import Encoding
from crossmodal.models.sgraf.compiled_gradients import CompiledVectors
from crossmodal.models.sgraf.equations import PairScorer, score_by_caption
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.models.sgraf.tiled import TorchMap

pytestmark = needs_compiler


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request, monkeypatch, tmp_path_factory):
    """The library for these instructions."""
    use_library(request.param, monkeypatch, tmp_path_factory)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def of_definition(weights, values, targets, weight, bias):
    return F.normalize(F.linear((weights @ values - targets).square(), weight, bias), dim=-1)


@pytest.mark.usefixtures("instructions", "threads")
@pytest.mark.parametrize(
    ("images", "targets", "regions", "dim", "size"),
    [(1, 1, 1, 32, 32), (5, 14, 6, 96, 64), (3, 45, 36, 64, 32), (40, 7, 33, 32, 256), (2, 0, 3, 32, 32)],
)
def test_vectors_and_gradients(images, targets, regions, dim, size):
    torch.manual_seed(targets)
    shapes = (images, targets, regions), (images, regions, dim), (targets, dim), (size, dim), (size,)
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    pulls = torch.randn(images, targets, size)
    made = CompiledVectors.apply(*leaves)
    torch.testing.assert_close(made, of_definition(*leaves), atol=1e-5, rtol=0)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(of_definition(*doubles), doubles, pulls.double())
    gradients = torch.autograd.grad(made, leaves, pulls, retain_graph=True)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-3)
    for first, again in zip(gradients, torch.autograd.grad(made, leaves, pulls), strict=True):
        assert torch.equal(first, again)


@pytest.mark.usefixtures("instructions")
def test_a_row_shorter_than_eps_is_scaled_alone():
    """As F.normalize has it, whose length is then a constant."""
    leaves = [torch.zeros(2, 3, 1), torch.ones(2, 1, 32), torch.ones(3, 32), torch.zeros(32, 32), torch.zeros(32)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    pulls = torch.randn(2, 3, 32)
    ours, theirs = (
        torch.autograd.grad(form(*leaves), leaves[4], pulls)[0]
        for form in (
            CompiledVectors.apply,
            lambda *given: F.normalize(F.linear(given[2], *given[3:]).expand(2, 3, 32), dim=-1, eps=1e-8),
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e3)  # of 1e8


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_a_step_is_that_of_the_equations(module):
    torch.manual_seed(0)
    scorer = PairScorer(module, 96, 64, steps=3, lambda_softmax=9.0).train()
    sets = [random_sets(9, 6, 2, 96, seed=0), random_sets(11, 10, 1, 96, seed=1)]
    sets = [Encoding(part.vectors.requires_grad_(), part.mask) for part in sets]
    pulls = torch.randn(9, 11)
    leaves = [*(part.vectors for part in sets), *scorer.parameters()]
    results = []
    for form in (score_matrix, score_by_caption):
        scores = form(scorer, *sets)
        results.append([scores.detach(), *torch.autograd.grad(scores, leaves, pulls, materialize_grads=True)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_bf16_with_gradients_is_left_to_torch():
    """The compiled code reads and writes fp32."""
    torch.manual_seed(0)
    leaves = [torch.randn(shape).bfloat16() for shape in ((2, 3, 4), (2, 4, 64), (3, 64), (64, 64), (64,))]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    made = TorchMap(*leaves[3:], tile=2**20, buffers=Buffers()).vectors(*leaves[:3])
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, of_definition(*leaves), atol=0.02, rtol=0)
    assert all(part.isfinite().all() for part in torch.autograd.grad(made.sum(), leaves))
