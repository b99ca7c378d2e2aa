"""Active complementary loss with stored soft labels, for training under wrong pairs (CRCL; Qin et al., NeurIPS 2023,
arXiv 2310.17468).

Of a batch of B pairs with similarities S, how probable each caption is for an image and each image for a caption:

    p_ij = e^(S_ij / t) / sum_k e^(S_ik / t)        q_ij = e^(S_ij / t) / sum_k e^(S_kj / t)

Pair i has a soft label y_i between 0 (wrong) and 1 (right). The active part trusts the pair as far as its label does;
the complementary part says no more than that other pairs do not match, and is bounded:

    active          -y_i (log p_ii + log q_ii)
    complementary   sum_(j != i) tan p_ij / (sum_j tan p_ij)^(1 - y_i)  and the same of q, by columns
    loss            active + 5 complementary

Labels refine themselves. They are 1 at the start and stay so for the first epochs; in the last of these
r_i = (p_ii + q_ii) / 2 is stored, and from then on every batch has y_i <- m y_i + (1 - m) r_i. Labels below 0.1 count,
and are stored, as 0.

Published setting: t 0.05, m 0.8, AdamW with 5e-4, gradient norm 2 of the mean over pairs. Published trainings begin
again three times from new weights with the labels they have come to; a training here is the last of these alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from crossmodal.losses.base import BatchLoss
from crossmodal.losses.candidates import Candidates
from crossmodal.losses.pair import same_image
from crossmodal.settings.training import Loss
from crossmodal.terminal import warn

COMPLEMENTARY = 5.0  # weight of the complementary part
LEAST = 0.1  # smaller labels are 0
MOST_WRONG = 0.75  # of the pairs; above this share the labels are too early rather than right


def complementary_loss(
    similarity: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    ignore: torch.Tensor | None = None,
    candidates: Candidates | None = None,
) -> torch.Tensor:
    """The loss above, summed over the batch.

    Args:
        similarity: (B, B), image x caption; pair b is image b with caption b.
        labels: (B,) soft labels.
        ignore: (B, B) bool, True where a pair is no negative though its indices differ.
        candidates: the pairs that are scored, the own ones among them; None: all. Sums over j and k are estimated.
    """
    pair = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    total = similarity.new_zeros(())
    for logits, weights in _directions(similarity, temperature, ignore, candidates):
        active = -labels * F.log_softmax(logits, dim=1).diagonal()
        probability = logits.softmax(dim=1) / weights.clamp(min=1)  # p_ij, 0 where there is no score
        tangents = weights * probability.tan()  # (B, B)
        complementary = tangents.masked_fill(pair, 0).sum(dim=1) / tangents.sum(dim=1) ** (1 - labels)
        total = total + (active + COMPLEMENTARY * complementary).sum()
    return total


def pair_probability(
    similarity: torch.Tensor,
    *,
    temperature: float,
    ignore: torch.Tensor | None = None,
    candidates: Candidates | None = None,
) -> torch.Tensor:
    """r of a batch: (B,). Arguments as in ``complementary_loss``."""
    directions = _directions(similarity, temperature, ignore, candidates)
    return sum(logits.softmax(dim=1).diagonal() for logits, _ in directions) / 2


def _directions(
    similarity: torch.Tensor, temperature: float, ignore: torch.Tensor | None, candidates: Candidates | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of images to captions and of captions to images, each (B, B): logits, and how many pairs each counts for.

    A pair that counts for w has log w added to its logit, so that a softmax over the row is that of all pairs.
    """
    logits = similarity / temperature
    if ignore is not None:
        pair = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        ignore = ignore & ~pair
        logits = logits.masked_fill(ignore, float("-inf"))
    if candidates is None:
        weights = torch.ones_like(logits)
        return [(logits, weights), (logits.T, weights)]
    rows, columns = (candidates.weights(dim, ignore).to(logits) for dim in (1, 0))
    return [(logits + rows.log(), rows), ((logits + columns.log()).T, columns.T)]


class ComplementaryLoss(BatchLoss):
    """``complementary_loss`` with the labels of all pairs, a buffer that a resumed training takes up.

    Args:
        captions: number of captions in the caption store, each with a label.
    """

    takes_captions = True
    takes_candidates = True

    def __init__(self, settings: Loss, captions: int) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("labels", torch.ones(captions))

    def forward(
        self,
        similarity: torch.Tensor,
        image_index: torch.Tensor,
        epoch: int,
        captions: torch.Tensor,
        candidates: Candidates | None = None,
    ) -> torch.Tensor:
        """The loss, summed over the pairs; their labels are updated.

        Args:
            similarity, image_index, epoch, candidates: see HingeLoss.
            captions: (B,) int64, row of the caption store of each pair's caption.
        """
        settings, options = self.settings, self._options(image_index) | {"candidates": candidates}
        with torch.no_grad():
            labels = stored = self.labels[captions]
            found = pair_probability(similarity, **options)
            if epoch >= settings.label_epochs:
                labels = settings.label_momentum * stored + (1 - settings.label_momentum) * found
            labels = labels.masked_fill(labels < LEAST, 0)
            self.labels[captions] = found if epoch == settings.label_epochs - 1 else labels
        return complementary_loss(similarity, labels, **options)

    def of_equal_scores(self, image_index: torch.Tensor, epoch: int, captions: torch.Tensor) -> torch.Tensor:
        """The loss, summed over the pairs, that the batch just seen would have had if all scores were equal."""
        labels = self.labels[captions]  # in the first epochs labels of 1 count, whatever is stored in the last of them
        labels = torch.ones_like(labels) if epoch < self.settings.label_epochs else labels
        return complementary_loss(labels.new_zeros(len(labels), len(labels)), labels, **self._options(image_index))

    def end_epoch(self, epoch: int) -> None:
        """Warn where the first labels that count are nearly all 0: a model that knows little finds all pairs wrong."""
        if epoch != self.settings.label_epochs:
            return
        seen = self.labels[self.labels < 1]
        wrong = (seen == 0).sum().item() / max(len(seen), 1)
        if wrong > MOST_WRONG:
            warn(
                f"epoch {epoch + 1}: {wrong:.0%} of the training pairs have a soft label of 0 and count as wrong; "
                f"more loss.label_epochs than {self.settings.label_epochs} may help"
            )

    def _options(self, image_index: torch.Tensor) -> dict[str, Any]:
        return {"temperature": self.settings.temperature, "ignore": same_image(image_index, self.settings)}
