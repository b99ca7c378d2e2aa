"""SGR's scores of pairs and their gradients by compiled code, pairs.c (compiled.py says how it is compiled)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.attention import EPS, SLOPE
from crossmodal.models.sgraf import compiled
from crossmodal.models.sgraf.equations import PairScorer
from crossmodal.models.sgraf.graph import graph_steps
from crossmodal.models.sgraf.threads import Buffers, map_tiles
from crossmodal.models.sgraf.tiled import TorchMap


def model_parameters(scorer: PairScorer) -> list[torch.Tensor]:
    """Weight and bias of every map in pairs.c's order, SGR's query and key being folded."""
    steps = graph_steps(scorer.reasoning, lambda *layer: TorchMap(*layer, tile=0, buffers=Buffers()))
    maps = [scorer.local_map, scorer.global_map, *(layer for step in steps for layer in (step.query, step.update))]
    return [tensor for layer in (*maps, scorer.score_map) for tensor in (layer.weight, layer.bias)]


@dataclass(frozen=True)
class Inputs:
    """The input of pairs.c; shapes there."""

    images: torch.Tensor
    regions_t: torch.Tensor
    present: torch.Tensor
    captions: torch.Tensor
    lengths: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    factors: torch.Tensor | None
    weights: torch.Tensor
    transposed: torch.Tensor
    sim_dim: int
    steps: int
    lambda_softmax: float

    def run(self, pairs: slice, scores: torch.Tensor | None, grad: torch.Tensor | None, *sums: torch.Tensor) -> None:
        """Fill the scores of some pairs, or add the gradients of their sum weighted by ``grad`` to the sums."""
        found, (_, most, dim), regions = compiled.library(), self.captions.shape, self.images.shape[1] - 1
        sizes = regions, dim, self.sim_dim, self.steps
        scratch = torch.empty(found.pair_scratch(int(self.lengths.max()) - 1, *sizes))
        sets = self.images, self.regions_t, self.present, self.captions, self.lengths
        some = [None if values is None else values[pairs] for values in (self.row, self.column, scores, grad)]
        model = self.factors, self.weights, self.transposed
        tensors = *sets, *some[:2], *model, *some[2:], *(sums or (None,) * 3), scratch
        found.score_pairs(
            *(None if tensor is None else compiled.address(tensor) for tensor in tensors),
            *map(ctypes.c_int, (len(some[0]), regions, most, *sizes[1:])),
            *map(ctypes.c_float, (self.lambda_softmax, SLOPE, EPS)),
        )

    def parts(self) -> list[slice]:
        """Pairs of each thread; one part where there is no pair."""
        size = max(1, -(-len(self.row) // torch.get_num_threads()))
        return [slice(start, start + size) for start in range(0, max(1, len(self.row)), size)]


class CompiledPairs(torch.autograd.Function):
    """Scores of pairs, (P,), which have gradients by the sets and the parameters.

    Arguments: images (N, 1 + R, E) and captions (C, 1 + L, E), fp32; which regions are present (N, R); the captions'
    lengths 1 + L (C,); row and column of each pair (P,); dropout of the similarity vectors (C, S), or None; lambda of
    equation (3); ``model_parameters``.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor | float) -> torch.Tensor:
        images, captions, present, lengths, row, column, factors, lambda_softmax, *parameters = arguments
        gap = -present.shape[1] % (compiled.library().width() // 2)
        ctx.inputs = inputs = Inputs(
            images=images.contiguous(),
            regions_t=F.pad(images[:, 1:], (0, 0, 0, gap)).mT.contiguous(),
            present=F.pad(present.float(), (0, gap)).contiguous(),
            captions=captions.contiguous(),
            lengths=lengths.contiguous(),
            row=row.contiguous(),
            column=column.contiguous(),
            factors=None if factors is None else factors.contiguous(),
            weights=torch.cat([tensor.flatten() for tensor in parameters]),
            transposed=torch.cat([weight.T.flatten() for weight in parameters[:-2:2]]),
            sim_dim=len(parameters[0]),
            steps=(len(parameters) - 6) // 4,
            lambda_softmax=lambda_softmax,
        )
        ctx.shapes = [tensor.shape for tensor in parameters]
        scores = images.new_empty(len(row))
        map_tiles(lambda part: inputs.run(part, scores, None), [(part,) for part in inputs.parts()], "cpu")
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        some = grad.nonzero().squeeze(1)
        inputs = replace(ctx.inputs, row=ctx.inputs.row[some], column=ctx.inputs.column[some])
        grad = grad[some]
        like = inputs.images, inputs.captions, inputs.weights
        tiles = [(part, [torch.zeros_like(tensor) for tensor in like]) for part in inputs.parts()]
        map_tiles(lambda part, sums: inputs.run(part, None, grad, *sums), tiles, "cpu")
        grad_images, grad_captions, grad_weights = (
            _sum(tensors) for tensors in zip(*(sums for _, sums in tiles), strict=True)
        )
        parts = grad_weights.split([shape.numel() for shape in ctx.shapes])
        parts = [part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)]
        return grad_images, grad_captions, *(None,) * 6, *parts


def _sum(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).sum(dim=0)
