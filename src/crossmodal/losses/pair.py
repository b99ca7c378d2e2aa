"""Losses on a similarity matrix, and the choice among all losses.

The losses here take the similarity matrix of a batch of pairs, so that they serve models with one vector per item
and models that score pairs alike; those of metric.py need the vectors.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.losses.complementary import ComplementaryLoss
from crossmodal.settings.params import Loss


def hinge_loss(
    similarity: torch.Tensor, *, margin: float, hardest: bool, ignore: torch.Tensor | None = None, views: int = 1
) -> torch.Tensor:
    """Bidirectional triplet hinge summed over the batch (VSE++, arXiv 1707.05612, eqs. 4 and 5).

    With several ``views`` of each image and caption it is ESA's self-expanding loss (Zhu et al., IEEE TCSVT 2023): the
    positive of a view is the least similar view of the other side, and no view of the own pair is a negative.

    Args:
        similarity: (B, B), image x caption of B pairs; pair b is image b with caption b. With V views B rows are those
            of B / V pairs, the views of pair p are rows and columns V p to V p + V - 1.
        margin: alpha.
        hardest: only the hardest negative of each query (max of hinges), else the sum over all.
        ignore: (B, B) bool, True where a pair is no negative though its indices differ; None: only the
            diagonal is left out, as published.
        views: V.

    Returns:
        Scalar, summed over images and captions (not averaged), as the published implementations do.
    """
    pair = torch.arange(len(similarity), device=similarity.device) // views
    excluded = pair[:, None] == pair
    if views == 1:
        of_image = of_caption = similarity.diagonal()
    else:
        own = similarity[excluded].view(-1, views, views)  # (B / V, image views, caption views)
        of_image, of_caption = own.min(dim=2).values.flatten(), own.min(dim=1).values.flatten()
    if ignore is not None:
        excluded = excluded | ignore
    caption_cost = (margin + similarity - of_image[:, None]).clamp(min=0).masked_fill(excluded, 0)
    image_cost = (margin + similarity - of_caption[None, :]).clamp(min=0).masked_fill(excluded, 0)
    if hardest:
        return caption_cost.max(dim=1).values.sum() + image_cost.max(dim=0).values.sum()
    return caption_cost.sum() + image_cost.sum()


def infonce_loss(
    similarity: torch.Tensor, *, temperature: torch.Tensor | float, ignore: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE summed over the batch (CLIP, arXiv 2103.00020, figure 3): shapes as in ``hinge_loss``.

    The cross-entropy of each image against the captions and of each caption against the images, halved.
    """
    logits = similarity / temperature
    if ignore is not None:
        pair = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        logits = logits.masked_fill(ignore & ~pair, float("-inf"))
    pairs = torch.arange(len(similarity), device=similarity.device)
    i2t = F.cross_entropy(logits, pairs, reduction="sum")
    return (i2t + F.cross_entropy(logits.T, pairs, reduction="sum")) / 2


def build_loss(settings: Loss, captions: int = 0) -> nn.Module:
    """The loss that the section ``loss`` of params.yaml describes; ``captions``: how many the caption store has."""
    if settings.name in ("hinge", "infonce"):
        return PairLoss(settings)
    if settings.name == "crcl":
        return ComplementaryLoss(settings, captions)
    from crossmodal.losses.metric import MetricLoss  # its library takes a second to import

    return MetricLoss(settings)


class PairLoss(nn.Module):
    """hinge or infonce of the section ``loss``, summed over a batch of pairs.

    InfoNCE learns its temperature, as CLIP does: a parameter that is trained with the model's but belongs to
    training alone.
    """

    takes_vectors = False

    def __init__(self, settings: Loss) -> None:
        super().__init__()
        self.settings = settings
        if settings.name == "infonce":
            self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    def forward(self, similarity: torch.Tensor, image_index: torch.Tensor, epoch: int) -> torch.Tensor:
        """The loss, summed over the pairs.

        Args:
            similarity: (B, B), image x caption, pairs on the diagonal, views of a pair one after the other.
            image_index: (B,), which view of which image each pair has; with ``mask_same_image`` pairs of one image are
                no negatives.
            epoch: from 0; hard negatives begin after ``all_negatives_epochs``.
        """
        settings = self.settings
        image = image_index // settings.views
        same_image = image[:, None] == image[None, :] if settings.mask_same_image else None
        if settings.name == "infonce":
            scale = self.log_scale.clamp(max=math.log(100)).exp()  # CLIP's bound
            return infonce_loss(similarity, temperature=1 / scale, ignore=same_image)
        hardest, views = self.sparse(epoch), settings.views
        return hinge_loss(similarity, margin=settings.margin, hardest=hardest, ignore=same_image, views=views)

    def of_equal_scores(self, image_index: torch.Tensor, epoch: int, captions: torch.Tensor) -> torch.Tensor:
        """The loss, summed over the pairs, that a batch would have if all scores were equal."""
        return self(image_index.new_zeros(len(image_index), len(image_index), dtype=torch.float32), image_index, epoch)

    def sparse(self, epoch: int) -> bool:
        """Whether in this epoch few of the pairs have a gradient: with hard negatives three of a row and column."""
        settings = self.settings
        return settings.name == "hinge" and settings.negatives == "hard" and epoch >= settings.all_negatives_epochs
