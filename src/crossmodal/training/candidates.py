"""Which pairs of a batch are scored, where not all are (``loss.candidates``): hard negatives, and a random sample.

Every caption gets its own image and those that share its group (``train.neighbours``), then the images nearest to it by
the cosine of the two encodings' means, the cheap score by which shortlists are found too; every image the captions
nearest to it. What ``count`` leaves is drawn at random: image and caption are matched by shifts of a random order of
the images, so that each image and each caption gets as many.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crossmodal.losses.candidates import Candidates

NEAREST = 0.25  # of the candidates besides the group, the share that is the nearest; the rest is random


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
    """Candidates of N images and B captions, about ``count`` a caption.

    Args:
        images, captions: (N, E) and (B, E), length 1.
        image_index: (B,), image of each caption.
        group: (N,), images of the same number are candidates of each other's captions, as far as ``count`` goes.
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
    own = torch.arange(len(images), device=images.device)[:, None] == image_index  # (N, B)
    if count >= len(images):
        return Candidates(torch.ones_like(own), torch.zeros_like(own))
    alike = group[:, None] == group[image_index]
    ranked = images @ captions.T + 4.0 * own + 2.0 * alike  # cosines are within 1
    beside = int((alike.sum() / len(captions)).ceil())
    most = min(count, beside + round(NEAREST * (count - beside) / 2))
    certain = torch.zeros_like(own).scatter_(0, ranked.topk(most, dim=0).indices, True)
    per_image = max(1, round(most * len(captions) / len(images)))
    certain.scatter_(1, ranked.topk(min(per_image, len(captions)), dim=1).indices, True)
    certain |= own
    left = max(0, count - round(int(certain.sum()) / len(captions)))
    order = torch.randperm(len(images), generator=generator)
    shifts = 1 + torch.randperm(len(images) - 1, generator=generator)[:left]
    order, shifts = order.to(images.device), shifts.to(images.device)
    turn = order.argsort()[image_index]  # (B,)
    drawn = order[(turn + shifts[:, None]) % len(images)]  # (left, B)
    sampled = torch.zeros_like(own).scatter_(0, drawn, True)
    return Candidates(certain, sampled & ~certain)


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
    turn = captions.argsort(stable=True).argsort()
    kept = torch.rand(grad.shape, generator=generator).to(grad.device)[:, turn] < probability
    return torch.where(kept, grad / probability, 0)
