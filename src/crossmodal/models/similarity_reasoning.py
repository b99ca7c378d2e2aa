"""What SGRAF scores pairs by (Diao et al., AAAI 2021, arXiv 2101.01368): reasoning over similarity vectors.

SGR takes a pair's vectors z_0 (global) and z_l (one a word, see models/similarity_vectors.py) as nodes of a full
graph, in each step

    z_p <- relu(W_r sum_q softmax_q((W_in z_p) . (W_out z_q)) z_q)

(in the published code the three maps have biases), and reads node 0 after the last. SAF weighs them by gates:

    b_p = sigmoid(BatchNorm(u . z_p)),                   z = N(sum_p z_p b_p / sum_q b_q)

The score is a sigmoid of a linear map of what comes out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.models.base import Encoding
from crossmodal.models.compiled import Packed, pack
from crossmodal.models.independent_pairs import Maps, score_independent_pairs
from crossmodal.models.similarity_vectors import (
    EPS,
    Gallery,
    Linear,
    captions_of_one_length,
    gallery_of,
    similarity_vectors,
    unpadded,
    vectors_of_pairs,
)
from crossmodal.models.tiles import Buffers, map_tiles

CPU_TILE, GPU_TILE = 2**20, 2**26  # bytes of word-region differences at once: about a core's cache; much for a GPU
VECTORS = 4  # tiles of similarity vectors that are made at once; reasoned over is one at once
KEPT = 16  # the same, of all images, where gradients are kept


class PairScorer(nn.Module):
    """Scores every image with every caption.

    Args:
        module: sgr | saf.
        steps: graph steps, of sgr.
        smooth: factor in the attention's softmax.
        precision: fp32 | bf16, of the large products where no gradients are kept.
    """

    def __init__(self, module: str, embed_dim: int, sim_dim: int, steps: int, smooth: float, precision: str) -> None:
        super().__init__()
        self.smooth, self.precision = smooth, precision
        self.tile: int | None = None  # bytes; None: by device
        self.local_map = nn.Linear(embed_dim, sim_dim)
        self.global_map = nn.Linear(embed_dim, sim_dim)
        self.reasoning = GraphReasoning(sim_dim, steps) if module == "sgr" else AttentionFiltration(sim_dim)
        self.score_map = nn.Linear(sim_dim, 1)

    def forward(self, images: Encoding, captions: Encoding, *, sparse: bool = False) -> torch.Tensor:
        """Scores from 0 to 1 of sets with the global vector in slot 0: (N, 1 + R, E), (C, 1 + L, E) to (N, C).

        In training mode a pair's score depends on the other images, by the batch norm of SAF.

        Args:
            sparse: few of the scores will have a gradient. It costs the least then to make these few again; where
                scores depend on other images this changes nothing.
        """
        kept = torch.is_grad_enabled()
        dtype = torch.bfloat16 if self.precision == "bf16" and not kept else images.vectors.dtype
        with torch.autocast(images.vectors.device.type, enabled=False):
            maps = self._maps(dtype)
            if kept and sparse and not self._joint:
                return score_independent_pairs(self._score_tiles, self._score_pairs, images, captions, maps)
            scores = (self._score_whole if kept else self._score_tiles)(images, captions, maps)
            self.reasoning.finish()
            return scores

    @property
    def _joint(self) -> bool:
        return self.training and isinstance(self.reasoning, AttentionFiltration)

    def _score_tiles(self, images: Encoding, captions: Encoding, maps: Maps) -> torch.Tensor:
        """Scores without gradients, in tiles of some images and some captions: (N, C)."""
        dtype, (sim_dim, embed_dim) = maps[0][0].dtype, maps[0][0].shape
        gallery, maps = gallery_of(images, dtype), self._compiled(maps, dtype)
        tile = self._tile(images)
        itemsize = dtype.itemsize
        tiles, numbers = [], []
        parts = captions_of_one_length(captions.mask, lambda length: tile // (length * embed_dim * itemsize))
        for places in parts:
            sets = unpadded(captions, places).to(dtype)
            vectors = sets[..., 0].numel() * sim_dim * itemsize  # bytes, of an image
            starts = range(0, len(gallery), max(1, VECTORS * tile // vectors))
            tiles += [(gallery[start : start + starts.step], sets, maps, tile) for start in starts]
            numbers.append(len(starts))
        scores = map_tiles(self._score, tiles, images.vectors.device.type)
        columns = [torch.cat([next(scores) for _ in range(number)]) for number in numbers]
        return torch.cat(columns, dim=1)[:, torch.cat(parts).argsort()]

    def _score_whole(self, images: Encoding, captions: Encoding, maps: Maps) -> torch.Tensor:
        """Scores whose gradients are kept, of all images with some captions at a time: (N, C)."""
        gallery, tile = gallery_of(images, images.vectors.dtype), self._tile(images)
        vector = len(images) * len(maps[0][0]) * images.vectors.dtype.itemsize  # bytes, of all images
        parts = captions_of_one_length(captions.mask, lambda length: KEPT * tile // (length * vector))
        columns = [
            self._score(gallery, unpadded(captions, places), maps, tile, Buffers(used=False)) for places in parts
        ]
        return torch.cat(columns, dim=1)[:, torch.cat(parts).argsort()]

    def _score_pairs(self, images: Encoding, captions: torch.Tensor, maps: Maps) -> torch.Tensor:
        """Scores of P images, each with its caption, (P, 1 + L, E), as the equations are written: (P,)."""
        nodes = vectors_of_pairs(images, captions, maps[0], maps[1], smooth=self.smooth)
        return self._read(self.reasoning(nodes.unsqueeze(1), maps[3:], Buffers(used=False)), maps).squeeze(1)

    def _score(self, gallery: Gallery, captions: torch.Tensor, maps: Maps, tile: int, buffers: Buffers) -> torch.Tensor:
        """Scores of captions without padding: (C, 1 + L, E) to (N, C)."""
        nodes = similarity_vectors(gallery, captions, maps[0], maps[1], smooth=self.smooth, tile=tile, buffers=buffers)
        step = max(1, tile // (nodes[0].numel() * nodes.dtype.itemsize))
        parts = [nodes] if self._joint else nodes.split(step)
        return self._read(torch.cat([self.reasoning(part, maps[3:], buffers) for part in parts]), maps)

    def _read(self, vectors: torch.Tensor, maps: Maps) -> torch.Tensor:
        """Scores of what the reasoning made: (..., S) to (...)."""
        return F.linear(vectors.to(maps[2][0].dtype), *maps[2]).squeeze(-1).sigmoid()

    def _maps(self, dtype: torch.dtype) -> Maps:
        """Weight and bias of the local and the global map and of that to a score, and what the reasoning takes."""
        linears = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in (self.local_map, self.global_map)]
        return [*linears, (self.score_map.weight, self.score_map.bias), *self.reasoning.maps(dtype)]

    def _compiled(self, maps: Maps, dtype: torch.dtype) -> Maps:
        """What ``_maps`` gives, in compiled form where there is one; vectors are fp32 then, whatever the type."""
        packed = [(pack(*linear, dtype),) for linear in maps[:2]]
        if None in (packed[0][0], packed[1][0]):
            return maps
        return [*packed, maps[2], *self.reasoning.compiled(maps[3:], dtype)]

    def _tile(self, images: Encoding) -> int:
        return self.tile or (CPU_TILE if images.vectors.device.type == "cpu" else GPU_TILE)


class GraphReasoning(nn.Module):
    """SGR: steps over a full graph of similarity vectors, node 0 after the last: (N, C, 1 + L, S) -> (N, C, S).

    (W_in z_p + b_in) . (W_out z_q + b_out) is (W_out' W_in z_p + W_out' b_in) . z_q, one map for two, but for terms
    that are the same for all q. Of the last step, node 0 alone is made.
    """

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "map")}) for _ in range(steps)
        )

    def maps(self, dtype: torch.dtype) -> Maps:
        """Of each step, weight and bias of query and key in one, weight and bias of its map."""
        maps = []
        for step in self.steps:
            query, key, linear = step["query"], step["key"].weight.T, step["map"]
            maps.append((key @ query.weight, key @ query.bias, linear.weight, linear.bias))
        return [tuple(value.to(dtype) for value in step) for step in maps]

    def compiled(self, maps: Maps, dtype: torch.dtype) -> Maps:
        """The same in compiled form, which there is for the sizes of the similarity vectors."""
        return [(pack(*step[:2], dtype), pack(*step[2:], dtype)) for step in maps]

    def forward(self, nodes: torch.Tensor, maps: Maps, buffers: Buffers) -> torch.Tensor:
        pairs, nodes = nodes.shape[:2], nodes.flatten(0, 1)  # (P, 1 + L, S)
        *steps, (ask, tell) = [(step[: len(step) // 2], step[len(step) // 2 :]) for step in maps]
        for question, answer in steps:
            asking = _linear(nodes, question, buffers.take("asking", nodes, *nodes.shape))
            edges = torch.bmm(nodes, asking.transpose(1, 2)).softmax(dim=1)  # (P, asked, asking), faster than turned
            heard = torch.bmm(edges.transpose(1, 2), nodes, out=buffers.take("asking", nodes, *nodes.shape))
            nodes = _linear(heard, answer, buffers.take("reasoned", nodes, *nodes.shape), relu=True)
        asking = _linear(nodes[:, 0], ask)  # (P, S)
        edges = (nodes * asking.unsqueeze(1)).sum(dim=-1).softmax(dim=1)  # (P, asked)
        node = _linear(torch.bmm(edges.unsqueeze(1), nodes).squeeze(1), tell, relu=True)
        return node.unflatten(0, pairs)

    def finish(self) -> None:
        """Nothing is kept from one matrix to the next."""


class AttentionFiltration(nn.Module):
    """SAF: the sum of the similarity vectors, weighed by gates, L2-normalised: (N, C, 1 + L, S) -> (N, C, S).

    In training the batch norm of a caption's gates is over all images and the caption's vectors, as published.
    The running statistics take in the mean over a matrix' captions; as published, caption after caption, they would
    hold the last dozen captions alone.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.norm = nn.BatchNorm1d(1)
        self._statistics: list[torch.Tensor] = []  # of a matrix' captions, mean and variance (2, C)

    def maps(self, dtype: torch.dtype) -> Maps:
        """Weight and bias of the gate and of its batch norm."""
        gate = self.gate.weight.to(dtype), self.gate.bias.to(dtype)
        return [gate, (self.norm.weight, self.norm.bias)]

    def compiled(self, maps: Maps, dtype: torch.dtype) -> Maps:
        """The same for vectors in fp32: there is little to multiply."""
        return [tuple(value.float() for value in part) for part in maps]

    def forward(self, nodes: torch.Tensor, maps: Maps, buffers: Buffers) -> torch.Tensor:
        gate, (scale, shift) = maps
        logits = (nodes @ gate[0][0] + gate[1]).to(scale.dtype)  # (N, C, 1 + L)
        if self.training:
            variance, mean = torch.var_mean(logits, dim=(0, 2), correction=0, keepdim=True)  # (1, C, 1)
            count = logits[:, 0].numel()
            unbiased = variance * count / (count - 1)
            self._statistics.append(torch.cat([mean, unbiased]).squeeze(-1).detach())
        else:
            mean, variance = self.norm.running_mean, self.norm.running_var
        logits = (logits - mean) * (variance + self.norm.eps).rsqrt() * scale + shift
        gates = F.normalize(logits.sigmoid(), p=1, dim=-1, eps=EPS)
        vectors = gates.to(nodes.dtype).unsqueeze(2) @ nodes  # (N, C, 1, S)
        return F.normalize(vectors.squeeze(2), dim=-1, eps=EPS)

    def finish(self) -> None:
        """Take the statistics of a matrix into the running ones."""
        if self._statistics:
            mean, variance = torch.cat(self._statistics, dim=1).mean(dim=1, keepdim=True)  # (1,) each
            self.norm.running_mean.lerp_(mean, self.norm.momentum)
            self.norm.running_var.lerp_(variance, self.norm.momentum)
            self.norm.num_batches_tracked += 1
            self._statistics = []


def _linear(
    values: torch.Tensor, linear: Linear, out: torch.Tensor | None = None, *, relu: bool = False
) -> torch.Tensor:
    """A map of (..., E), or relu of it, in ``out`` where given."""
    if isinstance(linear[0], Packed):
        return linear[0].linear(values, out, relu=relu)
    weight, bias = linear
    flat = None if out is None else out.flatten(0, -2)
    mapped = torch.addmm(bias, values.flatten(0, -2), weight.T, out=flat).view(*values.shape[:-1], len(weight))
    return mapped.relu_() if relu else mapped
