"""Scores of some pairs of a batch, where not all are scored (``loss.candidates``): hard negatives, a random sample.

Every caption gets its own image and those that share its group (``train.neighbours``), then the images nearest to it by
the cosine of the two encodings' means, the cheap score by which shortlists are found too; every image the captions
nearest to it. What ``count`` leaves is drawn at random: image and caption are matched by shifts of a random order of
the images, so that each image and each caption gets as many, and one at least: it stands for all that are not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding, sent
from crossmodal.errors import UserError
from crossmodal.inference.scoring import pooled
from crossmodal.losses.base import BatchLoss
from crossmodal.losses.candidates import Candidates
from crossmodal.models.base import Matcher
from crossmodal.settings.training import Loss
from crossmodal.training.batches import PairBatch
from crossmodal.training.processes import Processes
from crossmodal.training.randomness import BatchRandomness

NEAREST = 0.25  # of the candidates besides the group, the share that is the nearest; the rest is random
CHOICE, THINNING = 1, 2  # random numbers


@dataclass(frozen=True)
class CandidateScorer:
    """Scores of a batch's candidates, the same in all processes.

    count: candidates of a caption. views: ``loss.views``.
    """

    count: int
    views: int
    processes: Processes

    @classmethod
    def of(cls, settings: Loss, loss: BatchLoss, model: Matcher, processes: Processes) -> CandidateScorer | None:
        """As ``loss.candidates`` says; None where all pairs are scored.

        ``auto`` is all too: settings/derived.py gives the train stage a number for it.

        Raises:
            UserError: the loss takes all pairs, or the model scores all.
        """
        count = 0 if settings.candidates == "auto" else settings.candidates
        if not count:
            return None
        if not loss.takes_candidates:
            raise UserError(f"params.yaml: loss.candidates {count}: loss.name {settings.name} takes all pairs; use 0")
        if not model.scores_candidates:
            raise UserError(
                f"params.yaml: loss.candidates {count}: only sgraf and imram score some of the pairs; use 0"
            )
        return cls(count, settings.views, processes)

    def score(
        self,
        model: Matcher,
        images: Encoding,
        captions: Sequence[Encoding],
        batch: PairBatch,
        randomness: BatchRandomness,
    ) -> tuple[torch.Tensor, Candidates]:
        """Scores of images N with captions B, (N, B), of the whole batch, and which of them count.

        Of a GPU the nearest have to be waited for: how many pairs there are is known by their values alone.
        The gradient by the scores is thinned (``thin_gradient``).

        Args:
            images: of the whole batch.
            captions, batch: this process's share.
        """
        candidates = self._choose(images, captions, batch, randomness)
        own = self.processes.own_rows(len(batch.image_index), self.views)
        scores = model.candidate_similarity(images, captions, candidates.scored[:, own])
        scores = self.processes.gather(scores.T).T  # (N, own captions) of all processes: (N, B)
        if scores.requires_grad:
            views = batch.captions.repeat_interleave(self.views)
            generator = randomness.generator(THINNING)
            scores.register_hook(partial(thin_gradient, captions=views, generator=generator))
        device = images.vectors.device
        return scores, Candidates(sent(candidates.certain, device), sent(candidates.sampled, device))

    @torch.no_grad()
    def _choose(
        self, images: Encoding, captions: Sequence[Encoding], batch: PairBatch, randomness: BatchRandomness
    ) -> Candidates:
        """Candidates of the whole batch, (N, B) on the CPU, by the means of its encodings."""
        vectors = self.processes.gather(torch.cat([pooled(part) for part in captions]))
        generator = randomness.generator(CHOICE)
        return choose_candidates(
            pooled(images), vectors, batch.index_on_host(), batch.group, self.count, generator, views=self.views
        )


@torch.no_grad()
def choose_candidates(
    images: torch.Tensor,
    captions: torch.Tensor,
    image_index: torch.Tensor,
    group: torch.Tensor,
    count: int,
    generator: torch.Generator,
    *,
    views: int = 1,
) -> Candidates:
    """Candidates of N images and B captions, about ``count`` a caption, on the CPU.

    Args:
        images, captions: (N, E) and (B, E), length 1.
        image_index: (B,) on the CPU, image of each caption.
        group: (N,) on the CPU, images of the same number are candidates of each other's captions, as far as ``count``
            goes.
        generator: on the CPU.
        views: of each image and caption, one after the other; those of a pair are all candidates or none.
    """
    if views > 1:
        means = [F.normalize(part.view(-1, views, part.shape[1]).mean(dim=1), dim=-1) for part in (images, captions)]
        pairs = choose_candidates(*means, image_index[::views] // views, group[::views], count, generator)
        parts = (
            part.repeat_interleave(views, 0).repeat_interleave(views, 1) for part in (pairs.certain, pairs.sampled)
        )
        return Candidates(*parts)
    own, device = torch.arange(len(images))[:, None] == image_index, images.device  # (N, B)
    if count >= len(images):
        return Candidates(torch.ones_like(own), torch.zeros_like(own))
    alike = group[:, None] == group[image_index]
    ranked = images @ captions.T + 4.0 * sent(own, device) + 2.0 * sent(alike, device)  # cosines are within 1
    siblings = int((alike.sum() / len(captions)).ceil())
    most = min(count, siblings + round(NEAREST * (count - siblings) / 2))
    certain = torch.zeros_like(ranked, dtype=torch.bool).scatter_(0, ranked.topk(most, dim=0).indices, True)
    per_image = max(1, round(most * len(captions) / len(images)))
    certain.scatter_(1, ranked.topk(min(per_image, len(captions)), dim=1).indices, True)
    certain = certain.cpu() | own
    left = max(1, count - round(int(certain.sum()) / len(captions)))
    order = torch.randperm(len(images), generator=generator)
    shifts = 1 + torch.randperm(len(images) - 1, generator=generator)
    position = order.argsort()[image_index]  # (B,)
    drawn = order[(position + shifts[:, None]) % len(images)]  # (N - 1, B), each caption's images by turns
    turns = torch.arange(len(drawn))[:, None].expand_as(drawn)
    turn = torch.full(own.shape, len(images)).scatter_(0, drawn, turns)  # (N, B); N: never
    turn[certain] = len(images)
    sampled = turn < left
    for dim in (0, 1):  # captions, then images, whose turns were all of certain pairs
        first = turn.amin(dim=dim, keepdim=True)
        sampled |= (turn == first) & (first < len(images)) & ~sampled.any(dim=dim, keepdim=True)
    return Candidates(certain, sampled)


def thin_gradient(grad: torch.Tensor, captions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The gradient of scores with most of its small values set to 0: the same on average, for a fraction of the time.

    A value g stays with probability p = min(1, |g| / mean of |g|) and becomes g / p (importance sampling, or Russian
    roulette); the mean is over values that are not 0. Of a softmax nearly all of the gradient is that of few pairs.

    Args:
        grad: (N, B).
        captions: (B,), a number of each caption: the same numbers are drawn for it in whatever order they come.
        generator: on the CPU.
    """
    size = grad.abs()
    mean = size.sum() / size.count_nonzero().clamp(min=1)
    probability = (size / mean.clamp(min=torch.finfo(size.dtype).tiny)).clamp(max=1)
    rank = captions.argsort(stable=True).argsort()
    kept = sent(torch.rand(grad.shape, generator=generator), grad.device)[:, rank] < probability
    return torch.where(kept, grad / probability, 0)
