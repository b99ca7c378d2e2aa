"""SGRAF's scores of some pairs of a batch, with gradients: what equations.py defines, for ``loss.candidates``.

For pairs that are chosen before they are scored, in any pattern: tiled.py would compute all pairs of the batch.

SGR's pairs are taken one by one by compiled code (pairs.c) that keeps the score alone: the backward pass recomputes the
rest, of the pairs whose gradient is not 0. Where there is no such code, and for SAF, torch's graph is kept, of the
pairs of some captions of one length at a time; on a GPU of near length, padded.

Shapes: N images, C captions; P pairs with captions of L words, R regions, E embedding, S similarity vector.
"""

from __future__ import annotations

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.batch import Encoding, sent
from crossmodal.models.attention import EPS, attention_weights
from crossmodal.models.sgraf.compiled import packs
from crossmodal.models.sgraf.compiled_pairs import CompiledPairs, model_parameters
from crossmodal.models.sgraf.equations import AttentionFiltration, GraphReasoning, PairScorer, unit
from crossmodal.models.sgraf.fast import filter_nodes, gate_logits
from crossmodal.models.sgraf.graph import graph_steps, reason_over_graph
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.models.sgraf.tiled import ImageSets, TorchMap, caption_groups, image_sets

PAIRS, GPU_PAIRS = 512, 4096  # at a time, about; on a GPU, of which a part is some hundred kernels
GPU_GROUPS = 2  # of captions of near length
LARGEST_MAP = 2**18  # bytes of a map that compiled code reads for every pair


def score_candidates(
    scorer: PairScorer, images: Encoding, captions: Encoding, candidates: torch.Tensor
) -> torch.Tensor:
    """Scores of some pairs of sets with the global vector in slot 0, (N, 1 + R, E) and (C, 1 + L, E).

    In training SAF's batch norm is over a caption's candidates, not over all images.

    Args:
        candidates: (N, C) bool on the CPU, the pairs.

    Returns:
        (N, C), 0 where there is no candidate.
    """
    with torch.autocast(images.vectors.device.type, enabled=False):
        factors = scorer.draw_factors(captions)
        if _compiled(scorer, images, captions):
            column, row = candidates.T.nonzero(as_tuple=True)
            lengths = captions.mask.sum(dim=1)
            sets = images.vectors, captions.vectors, images.mask[:, 1:], lengths, row, column
            scores = CompiledPairs.apply(*sets, factors, scorer.lambda_softmax, *model_parameters(scorer))
            index = row * len(captions) + column
        else:
            scores, index = _score_with_graph(scorer, images, captions, candidates, factors)
        matrix = images.vectors.new_zeros(len(images) * len(captions))
        return matrix.index_put((index,), scores).view(len(images), len(captions))


def _compiled(scorer: PairScorer, images: Encoding, captions: Encoding) -> bool:
    """Whether there is compiled code for this scorer, and captions have no gaps."""
    weight = scorer.local_map.weight
    return (
        isinstance(scorer.reasoning, GraphReasoning)
        and weight.numel() * weight.itemsize <= LARGEST_MAP
        and images.vectors.dtype == captions.vectors.dtype == weight.dtype == torch.float32
        and packs(weight, torch.float32)
        and not bool((captions.mask[:, 1:] > captions.mask[:, :-1]).any())
    )


def _score_with_graph(
    scorer: PairScorer, images: Encoding, captions: Encoding, candidates: torch.Tensor, factors: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all pairs, (P,), and their index in the flat matrix."""
    sets, device = image_sets(images, images.vectors.dtype), images.vectors.device
    reason = _Reasoning(scorer)
    most, groups = (PAIRS, 0) if device.type == "cpu" else (GPU_PAIRS, GPU_GROUPS)
    together = max(1, most * len(captions) // max(1, int(candidates.sum())))
    scores, flat = [], []
    for group in caption_groups(captions, lambda length: together, groups)[0]:
        own, image = candidates[:, group.host_index].T.nonzero(as_tuple=True)  # all pairs of some captions
        index = torch.stack([own, image, group.host_index[own], image * len(captions) + group.host_index[own]])
        column, row, caption, pair = sent(index, device)
        sentences = group.vectors.index_select(0, column)  # (P, 1 + L, E)
        nodes = _similarity_vectors(scorer, sets, row, sentences)
        if factors is not None:
            nodes = nodes * factors[caption].unsqueeze(1)
        count = torch.bincount(own, minlength=len(group.host_index)) * captions.on_host()[group.host_index].sum(dim=1)
        mask = None if group.mask is None else group.mask.index_select(0, column)
        scores.append(scorer.score(reason(nodes, column, sent(count, device), mask)))
        flat.append(pair)
    reason.finish()
    return torch.cat(scores), torch.cat(flat)


def _similarity_vectors(
    scorer: PairScorer, images: ImageSets, row: torch.Tensor, sentences: torch.Tensor
) -> torch.Tensor:
    """s_0 and all s_j of images (P,) and captions (P, 1 + L, E): (P, 1 + L, S)."""
    whole, words = sentences[:, :1], sentences[:, 1:]
    regions = images.regions.index_select(0, row)
    present = None if images.mask is None else images.mask[row].unsqueeze(1)
    cosines = torch.bmm(words, regions.mT)
    alpha = attention_weights(
        cosines, query_dim=1, context_dim=2, lambda_softmax=scorer.lambda_softmax, present=present
    )
    squared = ((alpha @ images.products.index_select(0, row)) * alpha).sum(dim=-1, keepdim=True)
    alpha = alpha * squared.clamp(min=EPS**2).rsqrt()
    local = PairMap.apply(alpha, regions, words, scorer.local_map.weight, scorer.local_map.bias)
    first = scorer.global_map((images.whole.index_select(0, row) - whole).square())
    return unit(torch.cat([first, local], dim=1))


class _Reasoning:
    """SGR, or SAF with the batch norm of its captions' candidates: (P, 1 + L, S) to (P, S)."""

    def __init__(self, scorer: PairScorer) -> None:
        self.module, self.statistics = scorer.reasoning, []
        self.joint = scorer.training
        self.saf = isinstance(self.module, AttentionFiltration)
        if not self.saf:
            self.steps = graph_steps(self.module, lambda *layer: TorchMap(*layer, tile=0, buffers=Buffers()))

    def __call__(
        self, nodes: torch.Tensor, column: torch.Tensor, count: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Similarity vectors of pairs.

        Args:
            column: (P,), which of C captions each pair has. count: (C,), nodes of all pairs of a caption, 1 or more.
            mask: (P, 1 + L), False where a node is padding; None: none is.
        """
        if not self.saf:
            return reason_over_graph(nodes, self.steps, None, mask)
        logits = gate_logits(nodes, self.module)  # (P, 1 + L)
        mean, variance = self.module.norm.running_mean, self.module.norm.running_var
        if self.joint:
            real = logits if mask is None else logits.masked_fill(~mask, 0)
            mean = logits.new_zeros(len(count)).index_add(0, column, real.sum(dim=1)) / count
            squares = logits - mean[column, None]
            squares = (squares if mask is None else squares.masked_fill(~mask, 0)).square().sum(dim=1)
            variance = logits.new_zeros(len(count)).index_add(0, column, squares) / count
            self.statistics.append((mean.detach(), variance.detach() * count / (count - 1).clamp(min=1)))
            mean, variance = mean[column, None], variance[column, None]
        return filter_nodes(nodes, logits, mean, variance, self.module, mask)

    def finish(self) -> None:
        """Take the batch into SAF's running statistics, once."""
        if self.statistics:
            self.module.track(*(torch.cat(values) for values in zip(*self.statistics, strict=True)))


class PairMap(torch.autograd.Function):
    """W (weights . values - targets)^2 + b of pairs: (P, L, R), (P, R, E), (P, L, E) to (P, L, S)."""

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor) -> torch.Tensor:
        weights, values, targets, weight, bias = arguments
        ctx.save_for_backward(weights, values, targets, weight)
        difference = torch.baddbmm(targets, weights, values, beta=-1).square_()
        return torch.addmm(bias, difference.flatten(0, 1), weight.T).view(*weights.shape[:2], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights, values, targets, weight = ctx.saved_tensors
        difference, flat = torch.baddbmm(targets, weights, values, beta=-1), grad.flatten(0, 1)
        grad_weight = flat.T @ difference.square().flatten(0, 1)
        grad_difference = torch.mm(flat, 2 * weight).view_as(difference).mul_(difference)
        grad_weights, grad_values = grad_difference @ values.mT, weights.mT @ grad_difference
        return grad_weights, grad_values, grad_difference.neg(), grad_weight, grad.sum(dim=(0, 1))
