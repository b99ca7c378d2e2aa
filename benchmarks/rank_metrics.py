"""Ranks and metrics of a similarity matrix: counting in place of the published argsort of every query.

    python benchmarks/rank_metrics.py                       # 5,000 images x 25,000 captions, as COCO 5K
    python benchmarks/rank_metrics.py --images 2000 --repeats 1

The ranks of the two are compared too. Memory is what a process of its own adds to the peak of making the matrices.
The first command, on 2 cores that had nothing else to do, printed

    5000 images x 25000 captions, float32, median of 3
    ranks, published loop       10.26 s
    ranks, counted               0.09 s
    every metric, nDCG too       6.59 s
    ranks: ratio                  112 x
    every metric: 160 MiB beside the two matrices of together 954 MiB
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
from measure import peak_memory, seconds

from crossmodal.evaluation.metrics import i2t_ranks, t2i_ranks
from crossmodal.evaluation.protocols import all_metrics
from crossmodal.evaluation.ranking import Pairs

CAPTIONS = 5  # of an image


def published(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks both ways as VSE++ and SCAN find them: every query sorted, its right items looked up in the order."""
    images, captions = similarity.shape
    i2t, t2i = np.zeros(images), np.zeros(captions)
    for image in range(images):
        order = np.argsort(similarity[image])[::-1]
        own = range(CAPTIONS * image, CAPTIONS * (image + 1))
        i2t[image] = min(np.where(order == caption)[0][0] for caption in own)
    turned = similarity.T
    for caption in range(captions):
        order = np.argsort(turned[caption])[::-1]
        t2i[caption] = np.where(order == caption // CAPTIONS)[0][0]
    return i2t, t2i


def counted(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks both ways as crossmodal finds them."""
    owners = np.arange(similarity.shape[1]) // CAPTIONS
    return i2t_ranks(similarity, owners), t2i_ranks(similarity, owners)


def every_metric(similarity: np.ndarray, graded: np.ndarray) -> None:
    """All that ``crossmodal score --relevance`` computes."""
    all_metrics(similarity, Pairs.of_captions(np.arange(similarity.shape[1]) // CAPTIONS), graded)


def random_scores(images: int, *, small: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Similarity (images, captions) and relevance (captions, images), float32."""
    rng, images = np.random.default_rng(0), 20 if small else images
    captions = CAPTIONS * images
    return rng.random((images, captions), dtype=np.float32), rng.random((captions, images), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()

    memory = peak_memory(every_metric, random_scores, settings.images, device="cpu")
    similarity, graded = random_scores(settings.images)
    ranks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    works: dict[str, Callable[[], object]] = {
        "ranks, published loop": lambda: ranks.update(published=published(similarity)),
        "ranks, counted": lambda: ranks.update(counted=counted(similarity)),
        "every metric, nDCG too": lambda: every_metric(similarity, graded),
    }
    rounds = [{name: seconds(work, "cpu") for name, work in works.items()} for _ in range(settings.repeats)]
    for ours, theirs in zip(ranks["counted"], ranks["published"], strict=True):
        assert ((ours == theirs) | ((ours > theirs) & (ours < theirs + 4))).all()  # chance ties count against us alone
    times = {name: statistics.median(row[name] for row in rounds) for name in works}
    print(f"{settings.images} images x {CAPTIONS * settings.images} captions, float32, median of {settings.repeats}")
    for name, time in times.items():
        print(f"{name:<24} {time:8.2f} s")
    print(f"{'ranks: ratio':<24} {times['ranks, published loop'] / times['ranks, counted']:8.0f} x")
    matrices = (similarity.nbytes + graded.nbytes) / 2**20
    print(f"every metric: {memory:.0f} MiB beside the two matrices of together {matrices:.0f} MiB")


if __name__ == "__main__":
    main()
