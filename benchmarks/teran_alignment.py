"""Training step of TERAN's alignment (MrSw, hinge with hard negatives): tiles against the published form.

    python benchmarks/teran_alignment.py                    # batch 128, 36 regions, 8 to 20 words, size 1024
    python benchmarks/teran_alignment.py --device cuda
    python benchmarks/teran_alignment.py --batch 40 --repeats 9

The published form repeats every image's regions for every caption and every caption's words for every image,
and multiplies these (N x C) pairs of matrices. Scores and gradients of the two are compared first; steps, forward
and backward, are then timed in turn in one process. Peak memory is what a step adds to the peak of making the
inputs: of a process of its own on a CPU, of the allocator on a GPU. The published form takes about 8 GB.

The first command, with one thread on a shared virtual machine (OMP_NUM_THREADS=1), printed

    batch 128, 36 regions, 8 to 20 words, size 1024, cpu, 1 threads, median of 3 steps
    published    25414.3 ms     7235.4 MiB
    tiles         2742.1 ms      106.9 MiB
    ratio            9.3 x        67.7 x
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import peak_memory, seconds

from crossmodal.batch import Encoding
from crossmodal.losses.pair import hinge_loss
from crossmodal.models.teran import align

WORDS = (8, 20)


def expanded(images: Encoding, captions: Encoding) -> torch.Tensor:
    """MrSw over regions and words that are repeated for every pair, as mesnico/TERAN computes it: (N, C)."""
    regions = images.vectors[:, None].expand(-1, len(captions), -1, -1)  # (N, C, R, E)
    words = captions.vectors[None].expand(len(images), -1, -1, -1)  # (N, C, W, E)
    cosines = torch.matmul(regions, words.transpose(2, 3))  # (N, C, R, W)
    real = images.mask[:, None, :, None] & captions.mask[None, :, None, :]
    return cosines.masked_fill(~real, 0).max(dim=2).values.sum(dim=2)


def tiled(images: Encoding, captions: Encoding) -> torch.Tensor:
    """MrSw as the model computes it: (N, C)."""
    return align(images, captions, "MrSw")


FORMS: dict[str, Callable[[Encoding, Encoding], torch.Tensor]] = {"published": expanded, "tiles": tiled}


def random_sets(batch: int, regions: int, dim: int, device: str, *, small: bool = False) -> tuple[Encoding, Encoding]:
    """A batch of images and one of captions, captions of 8 to 20 words."""
    torch.manual_seed(0)
    batch = 2 if small else batch
    lengths = torch.randint(WORDS[0], WORDS[1] + 1, (batch, 1))
    images = F.normalize(torch.randn(batch, regions, dim), dim=-1)
    words = F.normalize(torch.randn(batch, WORDS[1], dim), dim=-1)
    images = Encoding(images, torch.ones(batch, regions, dtype=torch.bool)).to(device)
    captions = Encoding(words, torch.arange(WORDS[1]) < lengths).to(device)
    images.vectors.requires_grad_()
    captions.vectors.requires_grad_()
    return images, captions


def step(form: str, images: Encoding, captions: Encoding) -> tuple[torch.Tensor, ...]:
    """Scores and the gradients of the loss by regions and words."""
    scores = FORMS[form](images, captions)
    loss = hinge_loss(scores, margin=0.2, hardest=True)
    return scores.detach(), *torch.autograd.grad(loss, [images.vectors, captions.vectors])


def published_step(images: Encoding, captions: Encoding) -> None:
    """For a process of its own."""
    step("published", images, captions)


def tiled_step(images: Encoding, captions: Encoding) -> None:
    """For a process of its own."""
    step("tiles", images, captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images and captions")
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--dim", type=int, default=1024, help="size of the common space")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each form")
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()

    sizes = (settings.batch, settings.regions, settings.dim, settings.device)
    memory = {
        form: peak_memory(work, random_sets, *sizes, device=settings.device)
        for form, work in (("published", published_step), ("tiles", tiled_step))
    }
    images, captions = random_sets(*sizes)
    for ours, published in zip(*(step(form, images, captions) for form in ("tiles", "published")), strict=True):
        torch.testing.assert_close(ours, published, atol=1e-4, rtol=1e-4)
    times = [
        {form: seconds(lambda form=form: step(form, images, captions), settings.device) for form in FORMS}
        for _ in range(settings.repeats)
    ]
    print(
        f"batch {settings.batch}, {settings.regions} regions, {WORDS[0]} to {WORDS[1]} words, size {settings.dim}, "
        f"{settings.device}, {torch.get_num_threads()} threads, median of {settings.repeats} steps"
    )
    median = {form: statistics.median(row[form] for row in times) for form in FORMS}
    for form in FORMS:
        print(f"{form:<10} {median[form] * 1000:9.1f} ms  {memory[form]:9.1f} MiB")
    print(
        f"{'ratio':<10} {median['published'] / median['tiles']:9.1f} x   {memory['published'] / memory['tiles']:9.1f} x"
    )


if __name__ == "__main__":
    main()
