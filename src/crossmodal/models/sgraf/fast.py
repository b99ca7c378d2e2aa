"""SGRAF's matrix of scores, fast: what equations.py defines, for every image with every caption.

Without gradients the matrix is computed in tiles of some images and some captions, a tile a thread, by compiled code
where there is some (compiled.py). Where few scores will have a gradient, their pairs are recomputed for the backward
pass (sparse_gradients.py); where all will, all images are scored with some captions at a time, with torch's graph.

Shapes: N images, C captions of L words, S similarity vector. A mask (C, 1 + L) is False where captions are padded, None
where none is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding
from crossmodal.models.attention import EPS
from crossmodal.models.sgraf.compiled import pack_map, packs
from crossmodal.models.sgraf.equations import AttentionFiltration, GraphReasoning, PairScorer, unit
from crossmodal.models.sgraf.graph import GraphStep, MakeMap, Map, graph_steps, reason_over_graph
from crossmodal.models.sgraf.sparse_gradients import with_sparse_gradients
from crossmodal.models.sgraf.threads import Buffers, map_tiles
from crossmodal.models.sgraf.tiled import (
    CaptionGroup,
    ImageSets,
    TorchMap,
    caption_groups,
    image_sets,
    inner_products,
    region_weights,
)

CPU_TILE, GPU_TILE = 2**20, 2**28  # bytes of word-region differences at a time: about a core's cache; much for a GPU
VECTORS = 4  # tiles of similarity vectors computed at a time; reasoning takes one at a time
KEPT = 16  # the same, of all images, where gradients are kept
GROUPS = 4  # of captions by length where they are padded
KEPT_GROUPS = 2  # the same where gradients are kept, and a group is 300 kernels


def score_matrix(
    scorer: PairScorer,
    images: Encoding,
    captions: Encoding,
    *,
    bf16: bool = False,
    sparse: int = 0,
    tile: int | None = None,
    padded: bool | None = None,
) -> torch.Tensor:
    """Scores from 0 to 1 of sets with the global vector in slot 0: (N, 1 + R, E), (C, 1 + L, E) to (N, C).

    In training mode a pair's score depends on the other images, by the batch norm of SAF, whose running statistics take
    in one call as one batch.

    Args:
        bf16: the large products in bf16 where no gradients are kept.
        sparse: at most so many of the scores will have a gradient, few of all; 0: many. Without effect where scores
            depend on other images.
        tile: bytes of word-region differences at a time; None: by device.
        padded: captions of near length together (``caption_groups``), so that a GPU is asked for few operations and
            never waited for; None: by device.
    """
    device = images.vectors.device.type
    tile = tile or (CPU_TILE if device == "cpu" else GPU_TILE)
    padded = device != "cpu" if padded is None else padded
    graph = isinstance(scorer.reasoning, GraphReasoning)
    joint = scorer.training and not graph
    factors = scorer.draw_factors(captions)
    with torch.autocast(device, enabled=False):
        if joint or (torch.is_grad_enabled() and (not sparse or (padded and not graph))):
            return _score_with_gradients(scorer, images, captions, factors, joint=joint, tile=tile, padded=padded)
        dtype = torch.bfloat16 if bf16 and not torch.is_grad_enabled() else images.vectors.dtype
        with torch.no_grad():
            scores = _score_in_tiles(scorer, images, captions, factors, dtype, tile, padded)
        if not torch.is_grad_enabled():
            return scores
        return with_sparse_gradients(scores, scorer, images, captions, factors, most=sparse if padded else None)


@dataclass(frozen=True)
class FastWeights:
    """A scorer's weights as the matrix is computed from them. ``reasoning``: SGR's steps, or SAF itself."""

    lambda_softmax: float
    local: Map
    whole: Map
    reasoning: tuple[GraphStep, ...] | AttentionFiltration
    score: torch.nn.Linear

    @classmethod
    def of(cls, scorer: PairScorer, make: MakeMap) -> FastWeights:
        """``make``: a map of weight and bias."""
        reasoning = scorer.reasoning
        if isinstance(reasoning, GraphReasoning):
            reasoning = graph_steps(reasoning, make)
        local, whole = (make(layer.weight, layer.bias) for layer in (scorer.local_map, scorer.global_map))
        return cls(scorer.lambda_softmax, local, whole, reasoning, scorer.score_map)

    def scores(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, C, S) to (N, C)."""
        return self.score(vectors.to(self.score.weight.dtype)).squeeze(-1).sigmoid()


def _score_in_tiles(
    scorer: PairScorer,
    images: Encoding,
    captions: Encoding,
    factors: torch.Tensor | None,
    dtype: torch.dtype,
    tile: int,
    padded: bool,
) -> torch.Tensor:
    """Scores without gradients: (N, C). ``factors``: (C, S), dropout."""
    buffers = Buffers()
    sim_dim, embed_dim = scorer.local_map.weight.shape
    if not padded and packs(scorer.local_map.weight, dtype):
        weights = FastWeights.of(scorer, lambda weight, bias: pack_map(weight, bias, dtype))
    else:
        weights = FastWeights.of(scorer, lambda weight, bias: TorchMap(weight.to(dtype), bias.to(dtype), tile, buffers))
    sets = image_sets(images, dtype)
    tiles, counts = [], []
    groups, back = caption_groups(
        captions, lambda length: tile // (length * embed_dim * dtype.itemsize), GROUPS * padded
    )
    for group in groups:
        group = replace(group, vectors=group.vectors.to(dtype))
        vectors = group.vectors[..., 0].numel() * sim_dim * dtype.itemsize  # bytes, of an image
        starts = range(0, len(sets), max(1, VECTORS * tile // vectors))
        own = None if factors is None else factors[group.index]
        some = [sets[start : start + starts.step] for start in starts]
        tiles += [(weights, part, group, own, tile, buffers) for part in some]
        counts.append(len(starts))
    scores = iter(map_tiles(_score_tile, tiles, images.vectors.device.type))
    columns = [torch.cat(list(itertools.islice(scores, count))) for count in counts]
    return torch.cat(columns, dim=1)[:, back]


def _score_tile(
    weights: FastWeights,
    images: ImageSets,
    group: CaptionGroup,
    factors: torch.Tensor | None,
    tile: int,
    buffers: Buffers,
) -> torch.Tensor:
    """Scores of the captions of a group, without gradients: (N, C)."""
    captions = group.vectors
    whole, words = captions[:, 0], captions[:, 1:]
    nodes = buffers.take("nodes", weights.local.bias, len(images), *captions.shape[:2], len(weights.local.bias))
    ones = whole.new_ones(len(images), len(whole), 1)
    weights.whole.fill_vectors(nodes[:, :, :1], ones, images.whole, whole)
    alpha = region_weights(images, words, weights.lambda_softmax)
    if group.real is None:
        weights.local.fill_vectors(nodes[:, :, 1:], alpha, images.regions, words.flatten(0, 1))
    else:
        nodes[:, :, 1:] = group.local_vectors(weights.local, alpha, images.regions)
    if factors is not None:
        nodes *= factors.unsqueeze(1)
    return weights.scores(_reason(weights, nodes, group.mask, tile, buffers))


def _score_with_gradients(
    scorer: PairScorer,
    images: Encoding,
    captions: Encoding,
    factors: torch.Tensor | None,
    *,
    joint: bool,
    tile: int,
    padded: bool,
) -> torch.Tensor:
    """Scores whose gradients are kept, of all images with some captions at a time: (N, C).

    Args:
        factors: (C, S), dropout.
        joint: SAF in training, whose batch norm is over all images with one caption, and whose statistics are tracked.
    """
    dtype = images.vectors.dtype
    weights = FastWeights.of(scorer, lambda weight, bias: TorchMap(weight.to(dtype), bias.to(dtype), tile, Buffers()))
    sets = image_sets(images, dtype)
    vector = len(images) * len(weights.local.bias) * dtype.itemsize  # bytes, of all images
    groups, back = caption_groups(captions, lambda length: KEPT * tile // (length * vector), KEPT_GROUPS * padded)
    columns, means, variances = [], [], []
    of_all = _global_vectors(weights, sets, captions.vectors[:, 0]) if padded else None
    found = zip(groups, inner_products(groups, sets.regions), strict=True)
    for group, products in found:  # (C, 1 + L, N * R)
        alpha = region_weights(sets, group.vectors[:, 1:], weights.lambda_softmax, products[:, 1:])
        local = group.local_vectors(weights.local, alpha, sets.regions)
        whole = of_all.index_select(1, group.index) if padded else _global_vectors(weights, sets, group.vectors[:, 0])
        nodes = torch.cat([whole.unsqueeze(2), local], dim=2)
        if factors is not None:
            nodes = nodes * factors[group.index].unsqueeze(1)
        if joint:
            logits = gate_logits(nodes, scorer.reasoning)
            variance, mean, unbiased = _statistics(logits, group.mask)
            means.append(mean.detach().flatten())
            variances.append(unbiased)
            vectors = filter_nodes(nodes, logits, mean, variance, scorer.reasoning, group.mask)
        else:
            vectors = _reason(weights, nodes, group.mask, tile, None)
        columns.append(weights.scores(vectors))
    if joint:
        scorer.reasoning.track(torch.cat(means), torch.cat(variances))
    return torch.cat(columns, dim=1)[:, back]


def _global_vectors(weights: FastWeights, images: ImageSets, whole: torch.Tensor) -> torch.Tensor:
    """s_0, equation (2), of every image with every caption, by the captions' global vectors (C, E): (N, C, S).

    Equation (1) is symmetric: the images are the many targets of each caption.
    """
    ones = whole.new_ones(len(whole), len(images), 1)
    return weights.whole.vectors(ones, whole.unsqueeze(1), images.whole.squeeze(1)).transpose(0, 1)


def _statistics(logits: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a caption's logits (N, C, 1 + L) over all images: variance and mean (1, C, 1), and unbiased variance (C,)."""
    if mask is None:
        variance, mean = torch.var_mean(logits, dim=(0, 2), correction=0, keepdim=True)
        count = logits[:, 0].numel()
        return variance, mean, variance.detach().flatten() * count / max(1, count - 1)
    real = mask.to(logits.dtype)
    count = (len(logits) * real.sum(dim=1)).view(1, -1, 1)
    mean = (logits * real).sum(dim=(0, 2), keepdim=True) / count
    variance = ((logits - mean).square() * real).sum(dim=(0, 2), keepdim=True) / count
    return variance, mean, (variance.detach() * count / (count - 1).clamp(min=1)).flatten()


def _reason(
    weights: FastWeights, nodes: torch.Tensor, mask: torch.Tensor | None, tile: int, buffers: Buffers | None
) -> torch.Tensor:
    """SGR, or SAF outside training, a tile of images at a time: (N, C, 1 + L, S) to (N, C, S)."""
    vectors = []
    for part in nodes.split(max(1, tile // (nodes[0].numel() * nodes.dtype.itemsize))):
        if isinstance(weights.reasoning, AttentionFiltration):
            saf, norm = weights.reasoning, weights.reasoning.norm
            vectors.append(filter_nodes(part, gate_logits(part, saf), norm.running_mean, norm.running_var, saf, mask))
        else:
            of_pairs = None if mask is None else mask.expand(len(part), -1, -1).flatten(0, 1)
            reasoned = reason_over_graph(part.flatten(0, 1), weights.reasoning, buffers, of_pairs)
            vectors.append(reasoned.unflatten(0, part.shape[:2]))
    return torch.cat(vectors)


def gate_logits(nodes: torch.Tensor, saf: AttentionFiltration) -> torch.Tensor:
    """SAF's gate before its batch norm: (..., 1 + L, S) to (..., 1 + L)."""
    weight, bias = (values.to(nodes.dtype) for values in (saf.gate.weight[0], saf.gate.bias))
    return (nodes @ weight + bias).to(saf.norm.weight.dtype)


def filter_nodes(
    nodes: torch.Tensor,
    logits: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    saf: AttentionFiltration,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Equations (7) and (8), from the gate's logits and the statistics of its batch norm: to (..., S)."""
    norm = saf.norm
    normed = (logits - mean) * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    gates = normed.sigmoid() if mask is None else normed.sigmoid() * mask
    beta = F.normalize(gates, p=1, dim=-1, eps=EPS)
    return unit((beta.to(nodes.dtype).unsqueeze(-2) @ nodes).squeeze(-2))
