"""SGRAF's similarity vectors of all pairs of some images and some captions, in small tiles.

Captions of one length are taken together, without padding, with so few images that a tile stays in the processor's
cache: nothing of size (images, captions, words, E) is held, forward or backward. The length of a weighted sum of
regions, |alpha V|^2 = alpha V V' alpha', follows from the regions' inner products.

Shapes: N images, C captions of L words, R regions, E embedding, S similarity vector; T targets, the words (C * L) or
the global vectors (C) of the captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.batch import Batched, Encoding
from crossmodal.models.attention import EPS, attention_weights
from crossmodal.models.sgraf.compiled import packs
from crossmodal.models.sgraf.compiled_gradients import CompiledVectors
from crossmodal.models.sgraf.threads import Buffers


@dataclass(frozen=True)
class ImageSets(Batched):
    """Images as they are scored. ``mask``: None where no image has padding.

    whole: (N, 1, E), global vectors. regions: (N, R, E). products: (N, R, R), of the regions with each other.
    """

    whole: torch.Tensor
    regions: torch.Tensor
    products: torch.Tensor
    mask: torch.Tensor | None


def image_sets(images: Encoding, dtype: torch.dtype) -> ImageSets:
    """Sets with the global vector in slot 0, (N, 1 + R, E), as they are scored."""
    regions = images.vectors[:, 1:].contiguous()
    mask = None if images.mask.all() else images.mask[:, 1:]
    return ImageSets(images.vectors[:, :1].to(dtype), regions.to(dtype), regions @ regions.mT, mask)


def captions_of_one_length(mask: torch.Tensor, chunk: Callable[[int], int]) -> list[torch.Tensor]:
    """Indices of captions that need no padding among themselves, by their mask (C, L): at most ``chunk(length)``."""
    parts = []
    lengths = mask.sum(dim=1).cpu()
    for length in lengths.unique().tolist():
        alike = (lengths == length).nonzero().squeeze(1).to(mask.device)
        parts += alike.chunk(math.ceil(len(alike) / max(1, chunk(length))))
    return parts


def unpadded(captions: Encoding, index: torch.Tensor) -> torch.Tensor:
    """Vectors of captions of one length: (C, ., E) to (len(index), length, E)."""
    return captions.vectors[index][captions.mask[index]].view(len(index), -1, captions.vectors.shape[-1])


def unpadded_parts(
    captions: Encoding, parts: list[torch.Tensor], regions: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``unpadded`` of each of the parts that ``captions_of_one_length`` gives, and its inner products with the regions.

    Either has one backward pass for all parts: regions (N, R, E), products (C, L, N * R).
    """
    order, counts = torch.cat(parts), [len(part) for part in parts]
    lengths = captions.mask.sum(dim=1).sort().values.tolist()  # the parts' order
    firsts = [sum(counts[:number]) for number in range(len(parts))]
    sizes = [count * lengths[first] for count, first in zip(counts, firsts, strict=True)]
    rows = captions.vectors[order][captions.mask[order]]
    both = rows.split(sizes), (rows @ regions.flatten(0, 1).T).split(sizes)
    for count, *part in zip(counts, *both, strict=True):
        yield tuple(values.unflatten(0, (count, -1)) for values in part)


def region_weights(
    images: ImageSets, words: torch.Tensor, lambda_softmax: float, cosines: torch.Tensor | None = None
) -> torch.Tensor:
    """Equation (3): (C, L, E) to (N, T, R), scaled so that N(sum_i alpha_ij v_i) of (4) is weights . regions.

    ``cosines``: v_i . t_j, (C, L, N * R), where they are known.
    """
    if cosines is None:
        cosines = words.flatten(0, 1) @ images.regions.flatten(0, 1).T  # (T, N * R)
    cosines = cosines.float().reshape(*words.shape[:2], *images.regions.shape[:2])  # (C, L, N, R)
    alpha = attention_weights(cosines, query_dim=1, context_dim=3, lambda_softmax=lambda_softmax, present=images.mask)
    alpha = alpha.flatten(0, 1).transpose(0, 1)  # (N, T, R)
    squared = ((alpha @ images.products) * alpha).sum(dim=-1, keepdim=True)
    return (alpha * squared.clamp(min=EPS**2).rsqrt()).to(words.dtype)


@dataclass(frozen=True)
class TorchMap:
    """A linear map, weight (S, E) and bias (S,), by torch. ``tile``: bytes of differences computed at a time.

    compiled.PackedMap is the same by compiled code.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    tile: int
    buffers: Buffers

    def linear(self, values: torch.Tensor, out: torch.Tensor | None = None, *, relu: bool = False) -> torch.Tensor:
        """W x + b, or relu of it: (..., E) to (..., S), in ``out`` where given."""
        flat = None if out is None else out.flatten(0, -2)
        mapped = torch.addmm(self.bias, values.flatten(0, -2), self.weight.T, out=flat)
        mapped = mapped.view(*values.shape[:-1], len(self.weight))
        return mapped.relu_() if relu else mapped

    def fill_vectors(
        self, out: torch.Tensor, weights: torch.Tensor, values: torch.Tensor, targets: torch.Tensor
    ) -> None:
        """N(W (weights . values - targets)^2 + b), equation (1), without gradients, into out (N, C, T / C, S).

        weights (N, T, R), values (N, R, E), targets (T, E).
        """
        mapped = self.buffers.take("mapped", weights, *weights.shape[:2], len(self.weight))
        fill_squared_differences(mapped, weights, values, targets, self)
        lengths = torch.linalg.vector_norm(mapped, dim=-1, keepdim=True).clamp(min=EPS)
        torch.div(mapped.view(out.shape), lengths.view(*out.shape[:-1], 1), out=out)

    def vectors(self, weights: torch.Tensor, values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The same with gradients, (N, T, S)."""
        if packs(self.weight, values.dtype):
            return CompiledVectors.apply(weights, values, targets, self.weight, self.bias)
        mapped = SquaredDifferenceMap.apply(weights, values, targets, self.weight, self.bias, self.tile)
        return F.normalize(mapped, dim=-1, eps=EPS)


def fill_squared_differences(
    out: torch.Tensor,
    weights: torch.Tensor,
    values: torch.Tensor,
    targets: torch.Tensor,
    layer: TorchMap,
) -> None:
    """W (weights . values - targets)^2 + b, nearly all of the work, into (N, T, S); shapes as in ``TorchMap``."""
    for part in _parts(len(weights), targets, layer.tile):
        difference = layer.buffers.take("difference", weights, *weights[part].shape[:2], targets.shape[1])
        torch.bmm(weights[part], values[part], out=difference).sub_(targets).square_()
        torch.addmm(layer.bias, difference.flatten(0, 1), layer.weight.T, out=out[part].flatten(0, 1))


class SquaredDifferenceMap(torch.autograd.Function):
    """``fill_squared_differences`` with gradients; the backward pass recomputes the differences from the inputs."""

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor | int) -> torch.Tensor:
        weights, values, targets, weight, bias, tile = arguments
        ctx.save_for_backward(weights, values, targets, weight)
        ctx.tile = tile
        out = weights.new_empty(*weights.shape[:2], len(weight))
        fill_squared_differences(out, weights, values, targets, TorchMap(weight, bias, tile, Buffers()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights, values, targets, weight = ctx.saved_tensors
        grad_weights, grad_values = torch.empty_like(weights), torch.empty_like(values)
        grad_targets, grad_weight = torch.zeros_like(targets), torch.zeros_like(weight)
        double, buffers = 2 * weight, Buffers()
        for part in _parts(len(weights), targets, ctx.tile // 2):
            shape, grad_out = (*weights[part].shape[:2], targets.shape[1]), grad[part].flatten(0, 1)
            difference, work = buffers.take("difference", weights, *shape), buffers.take("work", weights, *shape)
            torch.bmm(weights[part], values[part], out=difference).sub_(targets)
            torch.square(difference, out=work)
            grad_weight.addmm_(grad_out.T, work.flatten(0, 1))
            torch.mm(grad_out, double, out=work.flatten(0, 1))
            grad_difference = difference.mul_(work)
            grad_targets -= grad_difference[0] if len(work) == 1 else grad_difference.sum(dim=0)
            torch.bmm(grad_difference, values[part].transpose(1, 2), out=grad_weights[part])
            torch.bmm(weights[part].transpose(1, 2), grad_difference, out=grad_values[part])
        return grad_weights, grad_values, grad_targets, grad_weight, grad.sum(dim=(0, 1)), None


def _parts(images: int, targets: torch.Tensor, tile: int) -> list[slice]:
    """Images whose differences with all targets, (n, T, E), fill ``tile`` bytes."""
    step = max(1, tile // max(1, targets.numel() * targets.dtype.itemsize))
    return [slice(start, start + step) for start in range(0, images, step)]
