"""Losses on the similarity matrix of a batch of pairs: they serve models of one vector per item and of sets alike."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.losses.base import BatchLoss
from crossmodal.losses.candidates import Candidates
from crossmodal.settings.training import Loss


def hinge_loss(
    similarity: torch.Tensor,
    *,
    margin: float,
    hardest: bool,
    ignore: torch.Tensor | None = None,
    views: int = 1,
    candidates: Candidates | None = None,
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
        candidates: the pairs that are scored, all views of the own pair among them; None: all. The hardest is that of
            the candidates, the sum is estimated.

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
    if candidates is not None:
        excluded = excluded | ~candidates.scored
    caption_cost = (margin + similarity - of_image[:, None]).clamp(min=0).masked_fill(excluded, 0)
    image_cost = (margin + similarity - of_caption[None, :]).clamp(min=0).masked_fill(excluded, 0)
    if hardest:
        return caption_cost.max(dim=1).values.sum() + image_cost.max(dim=0).values.sum()
    if candidates is not None:
        caption_cost, image_cost = (
            cost * candidates.weights(dim, ignore) for cost, dim in ((caption_cost, 1), (image_cost, 0))
        )
    return caption_cost.sum() + image_cost.sum()


def infonce_loss(
    similarity: torch.Tensor,
    *,
    temperature: torch.Tensor | float,
    ignore: torch.Tensor | None = None,
    candidates: Candidates | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE summed over the batch (CLIP, arXiv 2103.00020, figure 3): shapes as in ``hinge_loss``.

    The cross-entropy of each image against the captions and of each caption against the images, halved. With
    ``candidates`` it is that of a sampled softmax: the denominators are estimated.
    """
    logits = similarity / temperature
    if ignore is not None:
        pair = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        ignore = ignore & ~pair
        logits = logits.masked_fill(ignore, float("-inf"))
    pairs = torch.arange(len(similarity), device=similarity.device)
    of_images = of_captions = logits
    if candidates is not None:
        of_images, of_captions = (logits + candidates.weights(dim, ignore).log() for dim in (1, 0))
    i2t = F.cross_entropy(of_images, pairs, reduction="sum")
    return (i2t + F.cross_entropy(of_captions.T, pairs, reduction="sum")) / 2


class HingeLoss(BatchLoss):
    """``hinge_loss`` with the settings of the section ``loss``; ESA's with several views."""

    takes_candidates = True

    def __init__(self, settings: Loss) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self, similarity: torch.Tensor, image_index: torch.Tensor, epoch: int, candidates: Candidates | None = None
    ) -> torch.Tensor:
        """The loss, summed over the pairs.

        Args:
            similarity: (B, B), image x caption, pairs on the diagonal, views of a pair one after the other.
            image_index: (B,), which view of which image each pair has; with ``mask_same_image`` pairs of one image are
                no negatives.
            epoch: from 0; hard negatives begin after ``all_negatives_epochs``.
            candidates: the pairs that are scored; None: all.
        """
        settings, ignore = self.settings, same_image(image_index, self.settings)
        hardest = bool(self.sparse(epoch, len(image_index)))
        options = {"margin": settings.margin, "hardest": hardest, "views": settings.views}
        return hinge_loss(similarity, **options, ignore=ignore, candidates=candidates)

    def sparse(self, epoch: int, pairs: int) -> int:
        """With hard negatives: of every image and of every caption its positive and its negative."""
        hardest = self.settings.negatives == "hard" and epoch >= self.settings.all_negatives_epochs
        return hardest * pairs * (3 if self.settings.views == 1 else 4)  # of one view both have the same positive


class InfoNceLoss(BatchLoss):
    """``infonce_loss`` whose temperature is learned, as CLIP does: a parameter that belongs to training alone.

    It stays at 0.01 or above, by its value and not by a bound in the graph, at which it would have no gradient.
    """

    takes_candidates = True

    def __init__(self, settings: Loss) -> None:
        super().__init__()
        self.settings = settings
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    def forward(
        self, similarity: torch.Tensor, image_index: torch.Tensor, epoch: int, candidates: Candidates | None = None
    ) -> torch.Tensor:
        """The loss, summed over the pairs; arguments as in ``HingeLoss``."""
        scale, ignore = self.log_scale.exp(), same_image(image_index, self.settings)
        return infonce_loss(similarity, temperature=1 / scale, ignore=ignore, candidates=candidates)

    @torch.no_grad()
    def end_step(self) -> None:
        self.log_scale.clamp_(max=math.log(100))  # CLIP's bound


def same_image(image_index: torch.Tensor, settings: Loss) -> torch.Tensor | None:
    """(B, B) bool, pairs of one image, which are no negatives; None without ``mask_same_image``."""
    image = image_index // settings.views
    return image[:, None] == image[None, :] if settings.mask_same_image else None
