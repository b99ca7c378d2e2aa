"""Similarity vectors with gradients on a CPU, in compiled form: gradients.c.

Images are shared among torch's threads, each of which adds up the gradients by words and weights of its own images.

Shapes: N images, T targets, R regions, E embedding, S similarity vector.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.attention import EPS
from crossmodal.models.sgraf.compiled import address, pack_map
from crossmodal.models.sgraf.threads import map_tiles

GROUP = 2**15  # as in the source


class CompiledVectors(torch.autograd.Function):
    """``TorchMap.vectors``: weights (N, T, R), values (N, R, E), targets (T, E), weight (S, E), bias (S,) to (N, T, S).

    For maps that compiled.packs; the backward pass computes the differences again.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor) -> torch.Tensor:
        weights, values, targets, weight, bias = arguments
        packed = pack_map(weight, bias, weight.dtype)
        weights, values, targets = weights.contiguous(), values.contiguous(), targets.contiguous()
        out, lengths = weights.new_empty(*weights.shape[:2], len(weight)), weights.new_empty(weights.shape[:2])

        def work(part: slice, _: int) -> None:
            packed.fill_vectors(out[part].unsqueeze(1), weights[part], values[part], targets, lengths[part])

        _share(len(weights), work)
        ctx.save_for_backward(weights, values, targets, weight, out, lengths)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights, values, targets, weight, vectors, lengths = ctx.saved_tensors
        grad, transposed = grad.contiguous(), weights.mT.contiguous()
        (images, count, regions), (size, dim), threads = weights.shape, weight.shape, torch.get_num_threads()
        double = pack_map(2 * weight.T, targets.new_zeros(dim), weight.dtype)
        width = double.library.width()
        grad_weights = weights.new_zeros(images, count, regions + -regions % width)
        grad_values = torch.empty_like(values)
        grad_targets, grad_map, grad_bias = (
            targets.new_zeros(threads, *shape) for shape in (targets.shape, (dim, size), (size,))
        )
        rows = count + GROUP // size
        scratch = targets.new_empty(threads, 2 * rows * (size + width) + (2 * regions + width) * width)

        def work(part: slice, thread: int) -> None:
            own = grad_weights[part], grad_values[part], grad_targets[thread], grad_map[thread], grad_bias[thread]
            read = grad[part], vectors[part], lengths[part], weights[part], transposed[part], values[part], targets
            numbers = len(values[part]), count, regions, dim, size
            double.library.gradients(
                *map(address, (*own, *read, double.weight, scratch[thread])),
                *map(ctypes.c_int, numbers),
                ctypes.c_float(EPS),
            )

        _share(images, work)
        grad_weight = grad_map.sum(dim=0).view(-1, size, width).transpose(0, 1).reshape(size, dim)
        return grad_weights[..., :regions], grad_values, grad_targets.sum(dim=0), grad_weight, grad_bias.sum(dim=0)


def _share(images: int, work: Callable[[slice, int], None]) -> None:
    """``work(part, thread)`` of a part of the images in each of torch's threads."""
    threads = torch.get_num_threads()
    parts = [slice(images * thread // threads, images * (thread + 1) // threads) for thread in range(threads)]
    map_tiles(work, [(part, thread) for thread, part in enumerate(parts)], "cpu")
