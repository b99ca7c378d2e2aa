"""Losses on a similarity matrix.

Every loss takes the similarity matrix of a batch of pairs, so that it serves models with one vector per item
and models that score pairs alike.
"""

from __future__ import annotations

import torch


def hinge_loss(
    similarity: torch.Tensor, *, margin: float, hardest: bool, ignore: torch.Tensor | None = None
) -> torch.Tensor:
    """Bidirectional triplet hinge summed over the batch (VSE++, arXiv 1707.05612, eqs. 4 and 5).

    Args:
        similarity: (B, B), image x caption of B pairs; pair b is image b with caption b.
        margin: alpha.
        hardest: only the hardest negative of each query (max of hinges), else the sum over all.
        ignore: (B, B) bool, True where a pair is no negative though its indices differ; None: only the
            diagonal is left out, as published.

    Returns:
        Scalar, summed over images and captions (not averaged), as the published implementations do.
    """
    positive = similarity.diagonal()
    excluded = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if ignore is not None:
        excluded = excluded | ignore
    caption_cost = (margin + similarity - positive[:, None]).clamp(min=0).masked_fill(excluded, 0)
    image_cost = (margin + similarity - positive[None, :]).clamp(min=0).masked_fill(excluded, 0)
    if hardest:
        return caption_cost.max(dim=1).values.sum() + image_cost.max(dim=0).values.sum()
    return caption_cost.sum() + image_cost.sum()
