"""SGRAF's similarity matrix and training step: the published form against this project's.

OMP_NUM_THREADS=2 python benchmarks/sgraf_similarity.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crossmodal.models.base import Encoding
from crossmodal.models.similarity_reasoning import AttentionFiltration, PairScorer


def norm(values: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Divided by the L2 norm."""
    return values / (values.square().sum(dim=dim, keepdim=True).sqrt() + 1e-8)


def published_similarity(scorer: PairScorer, images: Encoding, captions: Encoding) -> torch.Tensor:
    """The matrix as the published code makes it: one caption after the other, against all images at once."""
    overall, regions = images.vectors[:, 0], images.vectors[:, 1:]  # every image has all R regions
    columns = []
    for vectors, mask in zip(captions.vectors, captions.mask, strict=True):
        words = vectors[1 : int(mask.sum())].expand(len(regions), -1, -1).contiguous()  # (N, L, E)
        attention = norm(F.leaky_relu(regions @ words.transpose(1, 2), 0.1), dim=2)  # (N, R, L)
        attention = (scorer.smooth * attention.transpose(1, 2).contiguous()).softmax(dim=2)  # (N, L, R)
        attended = norm(attention @ regions)
        local = norm(scorer.local_map((attended - words).square()))
        joint = norm(scorer.global_map((overall - vectors[0]).square()))
        nodes = torch.cat([joint.unsqueeze(1), local], dim=1)  # (N, 1 + L, S)
        if isinstance(scorer.reasoning, AttentionFiltration):
            gates = scorer.reasoning.norm(scorer.reasoning.gate(nodes).transpose(1, 2)).sigmoid()  # (N, 1, 1 + L)
            vector = norm((gates / (gates.sum(dim=2, keepdim=True) + 1e-8) @ nodes).squeeze(1))
        else:
            for step in scorer.reasoning.steps:
                edges = (step["query"](nodes) @ step["key"](nodes).transpose(1, 2)).softmax(dim=2)
                nodes = step["map"](edges @ nodes).relu()
            vector = nodes[:, 0]
        columns.append(scorer.score_map(vector).sigmoid())
    return torch.cat(columns, dim=1)
