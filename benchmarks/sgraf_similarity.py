"""SGRAF's similarity matrix and training step: tiles against the published form.

    python benchmarks/sgraf_similarity.py                       # 36 regions, 8 to 20 words, d 1024, sim 256
    python benchmarks/sgraf_similarity.py --steps 3             # training steps at batch 128 too (16 GB of memory)
    python benchmarks/sgraf_similarity.py --device cuda --images 1000 --captions 1000 --steps 3

The published form, equations.score_by_caption, goes through the captions one by one, each against all images in batched
products. Matrices are compared first, then made in turn in one process; medians are reported. A training step is
forward and backward of the hinge loss with hard negatives, gradients compared as well; its memory is what it takes
beside its inputs, of a process of its own on a CPU.

The first command, and one with --images 16 --captions 32 --steps 2 (of which the steps are shown), on 2 cores (Zen 4)
that had nothing else to do, with a C compiler (models/sgraf/compiled.py), printed

    64 images of 36 regions, 208 captions of 8 to 20 words, cpu, 2 threads, compiled, median of 5
    sgr  published         4,714 pairs/s    1.00 x   differs by 0e+00
    sgr  tiles             9,995 pairs/s    2.12 x   differs by 6e-08
    sgr  tiles, bf16      17,067 pairs/s    3.62 x   differs by 1e-04
    saf  published        10,141 pairs/s    1.00 x   differs by 0e+00
    saf  tiles            18,604 pairs/s    1.83 x   differs by 1e-07
    saf  tiles, bf16      33,280 pairs/s    3.28 x   differs by 6e-05
    sgr  published step     10.16 s    1.00 x     7,632 MiB
    sgr  tiles step          2.01 s    5.06 x       202 MiB
    saf  published step      5.76 s    1.00 x     4,573 MiB
    saf  tiles step          5.91 s    0.97 x       869 MiB

That was before SGR's steps and the backward pass were compiled, too. Since then, by one thread's
processor time on a busy machine, sgr's matrix takes 0.90 of what it took, and saf's step 0.8 (batch 48: 1.7 to 2.0
times as fast as the published form). docs/models/sgraf.md counts the operations.

In several such runs sgr was 2.06 to 2.12 times as fast, saf 1.8 to 2.0 (the published form's own speed varies most),
bf16 3.5 to 3.9 and 3.2 to 3.6. Without a compiler, the cores as idle, they were 1.86 to 1.9, 1.66 to 1.78, 3.4 to 3.6
and 2.9 to 3.1.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import peak_memory, seconds
from torch import nn

from crossmodal.batch import Encoding
from crossmodal.losses.pair import hinge_loss
from crossmodal.models.sgraf.compiled import library
from crossmodal.models.sgraf.equations import PairScorer, score_by_caption
from crossmodal.models.sgraf.fast import score_matrix

WORDS = (8, 20)
Form = Callable[[PairScorer, Encoding, Encoding], torch.Tensor]


def tiled(scorer: PairScorer, images: Encoding, captions: Encoding) -> torch.Tensor:
    """The matrix as the model makes it, for a loss with few gradients: (N, C)."""
    return score_matrix(scorer, images, captions, sparse=3 * len(images))


FORMS: dict[str, Form] = {"published": score_by_caption, "tiles": tiled}


def random_pairs(
    module: str, images: int, captions: int, device: str, *, small: bool = False
) -> tuple[PairScorer, Encoding, Encoding]:
    """A scorer of the published sizes, images of 36 regions and captions of 8 to 20 words; slot 0 is the whole."""
    torch.manual_seed(0)
    images, captions = (2, 2) if small else (images, captions)
    scorer = PairScorer(module, 1024, 256, steps=3, lambda_softmax=9.0)
    for layer in scorer.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.uniform_(layer.bias, -0.05, 0.05)
    regions = F.normalize(torch.randn(images, 1 + 36, 1024), dim=-1)
    words = F.normalize(torch.randn(captions, 1 + WORDS[1], 1024), dim=-1)
    lengths = torch.randint(WORDS[0], WORDS[1] + 1, (captions, 1))
    mask = torch.arange(1 + WORDS[1]) <= lengths
    words = words.masked_fill(~mask.unsqueeze(-1), 0)
    scorer = scorer.eval().to(device)
    return (
        scorer,
        Encoding(regions, torch.ones(images, 37, dtype=torch.bool)).to(device),
        Encoding(words, mask).to(device),
    )


@torch.inference_mode()
def matrix(
    form: str, scorer: PairScorer, images: Encoding, captions: Encoding, precision: str = "fp32"
) -> torch.Tensor:
    """Similarities without gradients."""
    if precision == "bf16":
        return score_matrix(scorer, images, captions, bf16=True)
    return FORMS[form](scorer, images, captions)


def step(form: str, scorer: PairScorer, images: Encoding, captions: Encoding) -> tuple[torch.Tensor, ...]:
    """Scores in training mode and the gradients of the loss by regions, words and weights."""
    scorer.train()
    images = Encoding(images.vectors.detach().requires_grad_(), images.mask)
    captions = Encoding(captions.vectors.detach().requires_grad_(), captions.mask)
    scores = FORMS[form](scorer, images, captions)
    loss = hinge_loss(scores, margin=0.2, hardest=True)
    weights = (scorer.local_map.weight, scorer.global_map.weight)
    return scores.detach(), *torch.autograd.grad(loss, [images.vectors, captions.vectors, *weights])


def published_step(*inputs: PairScorer | Encoding) -> None:
    """For a process of its own."""
    step("published", *inputs)


def tiled_step(*inputs: PairScorer | Encoding) -> None:
    """For a process of its own."""
    step("tiles", *inputs)


def compare_matrices(module: str, settings: argparse.Namespace) -> None:
    """Print seconds, ratio to the published form and largest difference from it."""
    inputs = random_pairs(module, settings.images, settings.captions, settings.device)
    runs = {
        "published": ("published", "fp32"),
        "tiles": ("tiles", "fp32"),
        "tiles, bf16": ("tiles", "bf16"),
    }
    made = {name: matrix(form, *inputs, precision) for name, (form, precision) in runs.items()}
    torch.testing.assert_close(made["tiles"], made["published"], atol=1e-5, rtol=0)
    times = [
        {name: seconds(lambda run=run: matrix(run[0], *inputs, run[1]), settings.device) for name, run in runs.items()}
        for _ in range(settings.repeats)
    ]
    first = statistics.median(row["published"] for row in times)
    for name in runs:
        median = statistics.median(row[name] for row in times)
        rate = settings.images * settings.captions / median
        difference = (made[name] - made["published"]).abs().max()
        print(f"{module}  {name:<12} {rate:10,.0f} pairs/s  {first / median:6.2f} x   differs by {difference:.0e}")


def compare_steps(module: str, settings: argparse.Namespace) -> None:
    """Print seconds and memory of a training step, and the ratios."""
    sizes = (module, settings.batch, settings.batch, settings.device)
    memory = {
        name: peak_memory(work, random_pairs, *sizes, device=settings.device)
        for name, work in (("published", published_step), ("tiles", tiled_step))
    }
    inputs = random_pairs(*sizes)
    for ours, theirs in zip(*(step(form, *inputs) for form in ("tiles", "published")), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    times = [
        {form: seconds(lambda form=form: step(form, *inputs), settings.device) for form in FORMS}
        for _ in range(settings.steps)
    ]
    median = {form: statistics.median(row[form] for row in times) for form in FORMS}
    for form in FORMS:
        print(
            f"{module}  {form + ' step':<15} {median[form]:8.2f} s  {median['published'] / median[form]:6.2f} x  "
            f"{memory[form]:8,.0f} MiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--captions", type=int, default=208)
    parser.add_argument("--repeats", type=int, default=5, help="matrices of each form")
    parser.add_argument("--batch", type=int, default=128, help="images and captions of a training step")
    parser.add_argument("--steps", type=int, default=0, help="training steps of each form")
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()

    how = "compiled" if settings.device == "cpu" and library() else "torch"
    print(
        f"{settings.images} images of 36 regions, {settings.captions} captions of {WORDS[0]} to {WORDS[1]} words, "
        f"{settings.device}, {torch.get_num_threads()} threads, {how}, median of {settings.repeats}"
    )
    for module in ("sgr", "saf"):
        compare_matrices(module, settings)
    for module in ("sgr", "saf") if settings.steps else ():
        compare_steps(module, settings)


if __name__ == "__main__":
    main()
