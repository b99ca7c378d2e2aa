"""pytorch-metric-learning's losses between images and captions, with its distances, reducers, regularizers, miners.

The library compares every item with every other. Here an item of one modality is compared with those of the other
alone (``ref_emb``): once images are the anchors and captions the references, once the other way round, and the loss
is the mean of the two. No pair of two images or of two captions counts; the library's own
``SelfSupervisedLoss(symmetric=True)`` would take such pairs as negatives.

For an anchor a, positives p and negatives n of the other modality, distance d (or similarity s: larger is nearer):

    contrastive      [d(a, p) - positive_margin]+  and  [negative_margin - d(a, n)]+  (Hadsell et al. 2006, unsquared)
    triplet          [d(a, p) - d(a, n) + margin]+  (Schroff et al., arXiv 1503.03832)
    ntxent           -log e^(s(a, p) / t) / (e^(s(a, p) / t) + sum_n e^(s(a, n) / t))  (arXiv 2002.05709, eq. 1)
    multisimilarity  log(1 + sum_p e^(-alpha (s(a, p) - base))) / alpha
                     + log(1 + sum_n e^(beta (s(a, n) - base))) / beta  (arXiv 1904.06627, eq. 15)

A miner chooses the pairs that count, a reducer makes one value of the losses of all pairs, triplets or anchors, a
regularizer adds a value computed from the embeddings themselves.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import nn

from crossmodal.batch import sent
from crossmodal.errors import UserError
from crossmodal.losses.base import BatchLoss
from crossmodal.losses.own_pairs import OWN_MINERS
from crossmodal.settings.training import Loss

DISTANCES = {
    "cosine": distances.CosineSimilarity,
    "dot": partial(distances.DotProductSimilarity, normalize_embeddings=False),
    "euclidean": distances.LpDistance,
    "snr": distances.SNRDistance,  # signal to noise, arXiv 1904.02616
}
REDUCERS = {
    "mean": reducers.MeanReducer,
    "sum": reducers.SumReducer,
    "nonzero": reducers.AvgNonZeroReducer,  # mean of the losses above 0
    "threshold": reducers.ThresholdReducer,  # mean of the losses between kwargs' low and high
    "per_anchor": reducers.PerAnchorReducer,  # mean of each anchor's mean
}
# The library's others need class centres, or are constant on vectors of length 1.
REGULARIZERS = {
    "l1": partial(regularizers.LpRegularizer, p=1),
    "zero_mean": regularizers.ZeroMeanRegularizer,
}
MINERS = {
    "angular": miners.AngularMiner,
    "batch_easy_hard": miners.BatchEasyHardMiner,
    "batch_hard": miners.BatchHardMiner,
    "distance_weighted": miners.DistanceWeightedMiner,
    "hdc": miners.HDCMiner,
    "multisimilarity": miners.MultiSimilarityMiner,
    "pair_margin": miners.PairMarginMiner,
    "triplet_margin": miners.TripletMarginMiner,
    "uniform_histogram": miners.UniformHistogramMiner,
}
TRIPLETS = ("all", "hard", "semihard", "easy")  # type_of_triplets of the triplet_margin miner
_OWN_DISTANCE = ("angular", "distance_weighted")  # miners defined by the Euclidean distance alone

_DEFAULT_REDUCER = {"contrastive": "nonzero", "triplet": "nonzero", "ntxent": "mean", "multisimilarity": "mean"}

Indices = tuple[torch.Tensor, ...]  # (anchors, positives, negatives) or (anchors, positives, anchors, negatives)


class MetricLoss(BatchLoss):
    """The loss that the section ``loss`` of params.yaml describes, of the vectors of a batch of pairs.

    Raises:
        UserError: ``loss.kwargs`` holds what the library does not take.
    """

    takes_vectors = True

    def __init__(self, settings: Loss) -> None:
        super().__init__()
        self.settings = settings
        distance = _part(settings, "distance", DISTANCES)
        own = {} if distance is None or settings.miner in _OWN_DISTANCE else {"distance": distance}
        self.miner = _part(settings, "miner", MINERS | OWN_MINERS if settings.mask_same_image else MINERS, **own)
        parts = {
            "distance": distance,
            "reducer": _part(settings, "reducer", REDUCERS),
            "embedding_regularizer": _part(settings, "regularizer", REGULARIZERS),
            "embedding_reg_weight": settings.regularizer_weight,
        }
        self.loss = _loss(settings, {name: part for name, part in parts.items() if part is not None})
        # The others choose values on the device by what these are.
        self.waits = bool(settings.miner) or (settings.reducer or _DEFAULT_REDUCER[settings.name]) not in (
            "mean",
            "sum",
        )
        self._try()

    def forward(self, images: torch.Tensor, captions: torch.Tensor, image_index: torch.Tensor) -> torch.Tensor:
        """The library's loss times B, so that it is summed over the pairs as the other losses are.

        Args:
            images, captions: (B, E), pair b is row b of both; an image with two captions in the batch is there twice.
            image_index: (B,) on the CPU, which image each pair has. Captions of one image are its positives, all of
                them, or with ``mask_same_image`` only the pair's own; they are negatives in neither case.
        """
        both = self._one_way(images, captions, image_index) + self._one_way(captions, images, image_index)
        return both / 2 if self.settings.reducer == "sum" else both / 2 * len(image_index)

    def _try(self) -> None:
        """See that the library computes with its arguments: it looks at the values of most in the first batch alone.

        Raises:
            UserError: it does not.
        """
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            images, captions = (F.normalize(torch.randn(12, 16), dim=1).requires_grad_() for _ in range(2))
            try:
                self(images, captions, torch.arange(12) // 2).backward()
            except Exception as error:  # whatever comes of an argument of a wrong type
                raise _refused(self.settings, error) from None

    def _one_way(self, anchors: torch.Tensor, references: torch.Tensor, image_index: torch.Tensor) -> torch.Tensor:
        settings, device = self.settings, anchors.device
        images = sent(image_index, device)
        labels = {"labels": images, "ref_labels": images.clone()}  # a copy: one tensor for both would drop the diagonal
        indices, triplets = None, settings.name == "triplet"
        if self.miner:
            indices = self.miner(anchors, **labels, ref_emb=references)
            if settings.mask_same_image:
                indices = _own_of_mined(indices)
        elif settings.mask_same_image or not triplets:  # known on the CPU, where it takes no wait for the device
            made = _own_pairs(image_index, triplets=triplets) if settings.mask_same_image else _all_pairs(image_index)
            indices = tuple(sent(index, device) for index in made)
        return self.loss(anchors, **labels, ref_emb=references, indices_tuple=indices)


class _NTXentLoss(losses.NTXentLoss):
    """The library's NT-Xent without its (positives, negatives) matrix, which grows with the cube of the batch."""

    def pair_based_loss(self, mat: torch.Tensor, indices_tuple: Indices) -> dict[str, dict[str, Any]]:
        self._anchors = len(mat)
        return super().pair_based_loss(mat, indices_tuple)

    def _compute_loss(
        self, positive: torch.Tensor, negative: torch.Tensor, indices_tuple: Indices
    ) -> dict[str, dict[str, Any]]:
        a1, p, a2, _ = indices_tuple
        if not len(a1) or not len(a2):
            return self.zero_losses()
        sign = 1 if self.distance.is_inverted else -1  # to similarities
        positive, negative = sign * positive / self.temperature, sign * negative / self.temperature
        highest = negative.new_full((self._anchors,), -torch.inf)
        highest = highest.scatter_reduce(0, a2, negative.detach(), "amax")
        total = torch.zeros_like(highest).index_add(0, a2, (negative - highest[a2]).exp())
        against = highest + total.clamp(min=torch.finfo(total.dtype).tiny).log()  # of each anchor: log sum_n e^s
        return {
            "loss": {"losses": F.softplus(against[a1] - positive), "indices": (a1, p), "reduction_type": "pos_pair"}
        }


class _MultiSimilarityLoss(losses.MultiSimilarityLoss):
    """The library's without its check, which waits for the device: no pair is positive and negative here."""

    @staticmethod
    def _assert_either_pos_or_neg(pos_mask: torch.Tensor, neg_mask: torch.Tensor) -> None:
        del pos_mask, neg_mask


def _loss(settings: Loss, parts: dict[str, Any]) -> losses.BaseMetricLossFunction:
    if settings.name == "triplet":
        return losses.TripletMarginLoss(margin=settings.margin, **parts)
    if settings.name == "ntxent":
        return _NTXentLoss(temperature=settings.temperature, **parts)
    if settings.name == "multisimilarity":
        return _MultiSimilarityLoss(settings.alpha, settings.beta, settings.base, **parts)
    loss = losses.ContrastiveLoss(**parts)
    near, far = (1.0, 0.0) if loss.distance.is_inverted else (0.0, 1.0)
    loss.pos_margin = near if settings.positive_margin is None else settings.positive_margin
    loss.neg_margin = far if settings.negative_margin is None else settings.negative_margin
    return loss


def _part(settings: Loss, role: str, kinds: dict[str, Any], **given: Any) -> nn.Module | None:
    """The distance, reducer, regularizer or miner of the settings; None: the library's default."""
    name = getattr(settings, role)
    if name is None:
        return None
    arguments = settings.kwargs.get(role, {})
    if (kind := arguments.get("type_of_triplets", "all")) not in TRIPLETS:  # the library takes any for "all"
        raise UserError(
            f"params.yaml: loss.kwargs.{role}.type_of_triplets {kind!r}: expected {', '.join(map(repr, TRIPLETS))}"
        )
    try:
        return kinds[name](**given, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise _refused(settings, error, role) from None


def _refused(settings: Loss, error: Exception, role: str | None = None) -> UserError:
    """What the library says of ``loss.kwargs``; ``role``: of that part's, None of any."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if role:
        return UserError(f"params.yaml: loss.{role} {getattr(settings, role)} with loss.kwargs.{role}: {reason}")
    parts = " and ".join(f"loss.kwargs.{part} {values}" for part, values in settings.kwargs.items())
    return UserError(f"params.yaml: loss.name {settings.name} with {parts or 'its parts'}: {reason}")


def _own_pairs(image_index: torch.Tensor, *, triplets: bool) -> Indices:
    """The anchor's own pair as the only positive, and every negative."""
    pairs = torch.arange(len(image_index))
    anchors, negatives = torch.where(image_index[:, None] != image_index[None, :])
    return (anchors, anchors, negatives) if triplets else (pairs, pairs, anchors, negatives)


def _all_pairs(image_index: torch.Tensor) -> Indices:
    """Every positive and every negative."""
    same = image_index[:, None] == image_index[None, :]
    return (*torch.where(same), *torch.where(~same))


def _own_of_mined(mined: Indices) -> Indices:
    """Of what a miner chose the positives that are the anchor's own pair, and every negative."""
    own = mined[0] == mined[1]
    filtered = 3 if len(mined) == 3 else 2  # a triplet goes as a whole, of four the negatives stay
    return (*(index[own] for index in mined[:filtered]), *mined[filtered:])
