"""Losses by the name that ``loss.name`` in params.yaml takes."""

from __future__ import annotations

from collections.abc import Callable

from crossmodal.losses.base import BatchLoss
from crossmodal.losses.complementary import ComplementaryLoss
from crossmodal.losses.pair import HingeLoss, InfoNceLoss
from crossmodal.settings.training import Loss


def _metric(settings: Loss, captions: int) -> BatchLoss:
    from crossmodal.losses.metric import MetricLoss  # its library takes a second to import

    return MetricLoss(settings)


LOSSES: dict[str, Callable[[Loss, int], BatchLoss]] = {
    "hinge": lambda settings, captions: HingeLoss(settings),
    "infonce": lambda settings, captions: InfoNceLoss(settings),
    "crcl": ComplementaryLoss,
    "contrastive": _metric,
    "triplet": _metric,
    "ntxent": _metric,
    "multisimilarity": _metric,
}


def build_loss(settings: Loss, captions: int = 0) -> BatchLoss:
    """The loss that the section ``loss`` of params.yaml describes; ``captions``: how many the caption store has."""
    return LOSSES[settings.name](settings, captions)
