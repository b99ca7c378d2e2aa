"""SGRAF's similarity vectors of all pairs of some images and some captions, in small tiles.

For scores that all have a gradient, or none: products of many images with many words share their operands.

On a CPU captions of one length are taken together, without padding, with so few images that a tile stays in the
processor's cache: nothing of size (images, captions, words, E) is held, forward or backward. On a GPU, where an
operation costs as much as a thousand small products, tiles are large, of captions of near length, padded to the longest
of them. The length of a weighted sum of regions, |alpha V|^2 = alpha V V' alpha', follows from their inner products.

Shapes: N images, C captions of L words, R regions, E embedding, S similarity vector; T targets, the words (C * L) or
the global vectors (C) of the captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.batch import Batched, Encoding, sent
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
    mask = None if images.whole() else images.mask[:, 1:]
    return ImageSets(images.vectors[:, :1].to(dtype), regions.to(dtype), regions @ regions.mT, mask)


@dataclass(frozen=True)
class CaptionGroup:
    """Captions that are scored together.

    index: (C,) int64, which of all they are; host_index: the same on the CPU. vectors: (C, 1 + L, E), 0 at padding.
    mask: (C, 1 + L) bool, and real: which of the C * L words are no padding, int64; both None without padding.
    """

    index: torch.Tensor
    host_index: torch.Tensor
    vectors: torch.Tensor
    mask: torch.Tensor | None
    real: torch.Tensor | None

    def local_vectors(self, layer: TorchMap, alpha: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """s_j, equation (4), of every image with every caption: alpha (N, C * L, R) to (N, C, L, S), 0 at padding."""
        words = self.vectors[:, 1:]
        targets = words.flatten(0, 1)
        if self.real is None:
            return layer.vectors(alpha, regions, targets).unflatten(1, words.shape[:2])
        real = layer.vectors(alpha.index_select(1, self.real), regions, targets.index_select(0, self.real))
        padded = real.new_zeros(len(real), len(targets), real.shape[2])
        return padded.index_copy(1, self.real, real).unflatten(1, words.shape[:2])


def caption_groups(
    captions: Encoding, chunk: Callable[[int], int], groups: int
) -> tuple[list[CaptionGroup], torch.Tensor]:
    """Groups of at most ``chunk(length)`` captions, and the index that brings their columns into the given order.

    Args:
        groups: so many, or more, of near length; 0: captions of one length alone.
    """
    parts = _near_lengths(captions, chunk, groups) if groups else _one_length(captions, chunk)
    host_index = torch.cat(parts)
    order, back = (sent(index, captions.vectors.device) for index in (host_index, host_index.argsort()))
    indices = order.split([len(part) for part in parts])
    if groups:
        return [_cut(captions, *pair) for pair in zip(parts, indices, strict=True)], back
    lengths = captions.lengths()
    rows = captions.vectors[order][captions.mask[order]]  # gathered once: one backward pass for all groups
    sentences = rows.split([int(lengths[part].sum()) for part in parts])
    unpadded = zip(indices, parts, sentences, strict=True)
    return [CaptionGroup(*ids, words.unflatten(0, (len(ids[0]), -1)), None, None) for *ids, words in unpadded], back


def _one_length(captions: Encoding, chunk: Callable[[int], int]) -> list[torch.Tensor]:
    parts = []
    lengths = captions.lengths()
    for length in lengths.unique().tolist():
        alike = (lengths == length).nonzero().squeeze(1)
        parts += alike.chunk(math.ceil(len(alike) / max(1, chunk(length))))
    return parts


def _near_lengths(captions: Encoding, chunk: Callable[[int], int], groups: int) -> list[torch.Tensor]:
    host = captions.on_host()
    extents, order = (host * torch.arange(1, host.shape[1] + 1)).amax(dim=1).sort(stable=True)
    size = -(-len(order) // groups)
    parts = []
    for alike, longest in zip(order.split(size), extents.split(size), strict=True):
        parts += alike.split(max(1, chunk(int(longest[-1]))))
    return parts


def _cut(captions: Encoding, host_index: torch.Tensor, index: torch.Tensor) -> CaptionGroup:
    """Captions padded to the longest of them; ``host_index``: ``index`` on the CPU."""
    own = captions.on_host()[host_index]
    longest = int((own * torch.arange(1, own.shape[1] + 1)).amax())
    vectors = captions.vectors.index_select(0, index)[:, :longest]
    if own[:, :longest].all():
        return CaptionGroup(index, host_index, vectors, None, None)
    mask = captions.mask.index_select(0, index)[:, :longest]
    real = sent(own[:, 1:longest].flatten().nonzero().squeeze(1), index.device)
    return CaptionGroup(index, host_index, vectors.masked_fill(~mask.unsqueeze(-1), 0), mask, real)


def inner_products(groups: Sequence[CaptionGroup], regions: torch.Tensor) -> Iterator[torch.Tensor]:
    """Of the words of each group with regions (N, R, E), (C, L, N * R): one product, which has one backward pass."""
    rows = torch.cat([group.vectors.flatten(0, 1) for group in groups])
    shapes = [group.vectors.shape[:2] for group in groups]
    products = (rows @ regions.flatten(0, 1).T).split([shape.numel() for shape in shapes])
    return (values.unflatten(0, shape) for values, shape in zip(products, shapes, strict=True))


def region_weights(
    images: ImageSets, words: torch.Tensor, lambda_softmax: float, cosines: torch.Tensor | None = None
) -> torch.Tensor:
    """Equation (3): (C, L, E) to (N, T, R), scaled so that N(sum_i alpha_ij v_i) of (4) is weights . regions.

    Args:
        words: 0 at padding, which then adds nothing to the sum over the words.
        cosines: v_i . t_j, (C, L, N * R), where they are known.
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
        if values.dtype == torch.float32 and packs(self.weight, torch.float32):
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
