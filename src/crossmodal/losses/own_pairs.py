"""Miners of pytorch-metric-learning that know one positive of each anchor, its own pair (``loss.mask_same_image``).

To the library all captions of an image are its positives, and a miner that chooses among them, or by them, would pass
over most own pairs where ``train.captions_per_image`` is above 1. Here the others of the image are neither positives
nor negatives. In batches with every image once they are the library's. What is mined has rows of the anchor in both
modalities: pair b is anchor b with reference b. Miners that judge every pair or triplet by itself need no form here.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning import miners


class _OwnPositives:
    """The hardest or easiest positive is the own one, and a semihard negative is so beside it."""

    def get_positives(
        self,
        mat: torch.Tensor,
        a1_idx: torch.Tensor,
        p_idx: torch.Tensor,
        negative_dists: torch.Tensor | None = None,
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        own = a1_idx == p_idx
        return super().get_positives(mat, a1_idx[own], p_idx[own], negative_dists)


class BatchHard(_OwnPositives, miners.BatchHardMiner):
    """Of every anchor its hardest negative."""


class BatchEasyHard(_OwnPositives, miners.BatchEasyHardMiner):
    """Of every anchor the negative of ``neg_strategy``."""


class HardAwareCascade(miners.HDCMiner):
    """The hardest share of the own pairs and of the negatives."""

    def set_idx(self, labels: torch.Tensor, ref_labels: torch.Tensor) -> None:
        super().set_idx(labels, ref_labels)
        own = self.a1 == self.p
        self.a1, self.p = self.a1[own], self.p[own]


class MultiSimilarity(miners.MultiSimilarityMiner):
    """Negatives that come as near as the own pair does, but for ``epsilon``; own pairs that some negative reaches."""

    def mine(
        self, embeddings: torch.Tensor, labels: torch.Tensor, ref_emb: torch.Tensor, ref_labels: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        a1, p, a2, n = super().mine(embeddings, labels, ref_emb, ref_labels)
        sign = 1 if self.distance.is_inverted else -1
        nearness = sign * self.distance(embeddings, ref_emb)
        kept = nearness[a2, n] + self.epsilon > nearness.diagonal()[a2]  # the library: than the farthest positive
        return a1, p, a2[kept], n[kept]


class DistanceWeighted(miners.DistanceWeightedMiner):
    """Of every anchor one negative, drawn by its distance."""

    def mine(
        self, embeddings: torch.Tensor, labels: torch.Tensor, ref_emb: torch.Tensor, ref_labels: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        anchors, _, negatives = super().mine(embeddings, labels, ref_emb, ref_labels)  # one for every positive
        first = (anchors[:, None] == anchors).int().argmax(dim=1)
        kept = first == torch.arange(len(anchors), device=anchors.device)
        return anchors[kept], anchors[kept], negatives[kept]


class UniformHistogram(miners.UniformHistogramMiner):
    """As many own pairs, and as many negatives, of every bin of their distances."""

    def get_uniformly_distributed_pairs(
        self, distances: torch.Tensor, anchors: torch.Tensor, others: torch.Tensor, num_pairs: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = anchors == others
        if own.any():  # no negative is
            distances, anchors, others = distances[own], anchors[own], others[own]
        return super().get_uniformly_distributed_pairs(distances, anchors, others, num_pairs)


OWN_MINERS = {  # by loss.miner
    "batch_easy_hard": BatchEasyHard,
    "batch_hard": BatchHard,
    "distance_weighted": DistanceWeighted,
    "hdc": HardAwareCascade,
    "multisimilarity": MultiSimilarity,
    "uniform_histogram": UniformHistogram,
}
