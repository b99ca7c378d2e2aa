"""ROUGE-L of every caption with every image: bit-parallel LCS in place of a loop over tables.

    python benchmarks/rouge_relevance.py                    # 25,000 made-up captions with 5,000 images
    python benchmarks/rouge_relevance.py --captions FILE    # JSON lines with "captions", plain or .gz

The loop is timed on 20 captions with 200 images and taken to all pairs; the two are compared there first. Memory is
what a process of its own adds to the peak of making the inputs. The second command, with the captions of COCO's
5,000 test images, on 2 cores where other work had to stand back (nice -n -15), printed

    25000 captions x 5000 images, 10.4 words
    table by table, from 20 x 200        4.3 h
    all pairs                          11.5 s
    ratio                              1330 x
    memory                              546 MiB, 477 of them the float32 matrix
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from measure import peak_memory, seconds

from crossmodal.evaluation.rouge import BETA, rouge_l_relevance

SAMPLE = 20, 200  # captions and images of the loop


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a, start=1):
        for j, right in enumerate(b, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def looped(captions: list[str], references: list[list[str]]) -> np.ndarray:
    """The definition, pair by pair, as coco-caption computes it: (C, N)."""
    scores = np.zeros((len(captions), len(references)))
    for row, caption in enumerate(captions):
        words = caption.lower().split(" ")
        for column, texts in enumerate(references):
            pairs = [(common(words, other), len(other)) for other in (text.lower().split(" ") for text in texts)]
            precision = max(length / len(words) for length, _ in pairs)
            recall = max(length / size for length, size in pairs)
            if precision and recall:
                scores[row, column] = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return scores


def made_up(images: int) -> list[list[str]]:
    """Five captions an image with COCO's lengths (8 and more words, 10.4 on average) and word frequencies like it."""
    rng = np.random.default_rng(0)
    lengths = 8 + rng.poisson(2.4, 5 * images)
    words = np.minimum(rng.zipf(1.4, lengths.sum()), 10_000).astype(str)
    captions = [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]
    return [captions[start : start + 5] for start in range(0, len(captions), 5)]


def read_captions(path: Path) -> list[list[str]]:
    """Captions of each image."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line)["captions"] for line in lines]


def inputs(path: Path | None, images: int, *, small: bool = False) -> tuple[list[str], list[list[str]]]:
    """Captions, and the captions of each image."""
    references = (read_captions(path) if path else made_up(images))[: 20 if small else images]
    return [caption for texts in references for caption in texts], references


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, metavar="FILE")
    parser.add_argument("--images", type=int, default=5000)
    settings = parser.parse_args()

    memory = peak_memory(rouge_l_relevance, inputs, settings.captions, settings.images, device="cpu")
    captions, references = inputs(settings.captions, settings.images)
    sample = captions[: SAMPLE[0]], references[: SAMPLE[1]]
    np.testing.assert_allclose(rouge_l_relevance(*sample), looped(*sample), rtol=1e-6)
    loop = seconds(lambda: looped(*sample), "cpu") / (SAMPLE[0] * SAMPLE[1])
    whole = seconds(lambda: rouge_l_relevance(captions, references), "cpu")
    pairs = len(captions) * len(references)
    words = np.mean([len(caption.split(" ")) for caption in captions])
    print(f"{len(captions)} captions x {len(references)} images, {words:.1f} words")
    print(f"table by table, from {SAMPLE[0]} x {SAMPLE[1]}  {loop * pairs / 3600:9.1f} h")
    print(f"all pairs                     {whole:9.1f} s")
    print(f"ratio                         {loop * pairs / whole:9.0f} x")
    print(f"memory                        {memory:9.0f} MiB, {4 * pairs / 2**20:.0f} of them the float32 matrix")


if __name__ == "__main__":
    main()
