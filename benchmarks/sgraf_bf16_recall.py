"""Recalls of a trained SGRAF whose similarity matrix is made in fp32, in bf16, and as evaluate makes it of bf16.

    dvc exp run -S model=sgraf && python -m benchmarks.sgraf_bf16_recall

Reads the pipeline's outs: the matcher has to be an sgraf. The README's sgraf on scenes (seed 0, one thread) gave, of
500 images and 2,500 captions, one query being 0.2 and 0.04 points,

    fp32  i2t/r1  24.80  i2t/r5  66.60  i2t/r10  81.80  t2i/r1  18.28  t2i/r5  59.76  t2i/r10  74.96  rsum 326.20
    bf16  i2t/r1  24.60  i2t/r5  67.00  i2t/r10  81.80  t2i/r1  18.28  t2i/r5  59.84  t2i/r10  74.96  rsum 326.48
    50,368 of 1,250,000 pairs scored again in fp32:
    bf16  i2t/r1  24.80  i2t/r5  66.60  i2t/r10  81.80  t2i/r1  18.28  t2i/r5  59.76  t2i/r10  74.96  rsum 326.20

and so did seeds 1 and 2: bf16 alone moved recalls by up to 0.6 i2t and 0.2 t2i, rescored they were those of fp32.
"""

from __future__ import annotations

import time

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.evaluation.metrics import flat, i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.features.store import FeatureStore
from crossmodal.inference.rescore import rescore_leading
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.checkpoint import load_matcher
from crossmodal.paths import CAPTIONS, DATASET, MATCHER, REGIONS


@exits_cleanly
def main() -> None:
    test, regions, words = split_rows(read_dataset(DATASET), "test"), FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    model, _ = load_matcher(MATCHER)
    if not hasattr(model.members()[0], "precision"):
        raise UserError(f"{MATCHER}: not an sgraf; run dvc exp run -S model=sgraf first")
    inputs = SearchInputs(model, regions, words, test, batch_size=256)
    for precision, again in (("fp32", False), ("bf16", False), ("bf16", True)):
        for member in model.members():
            member.precision = precision
        started = time.perf_counter()
        matrix = similarity_matrix(inputs)
        if again:
            pairs = rescore_leading(inputs, matrix)
            print(f"{pairs:,} of {matrix.size:,} pairs scored again in fp32:")
        seconds = time.perf_counter() - started
        metrics = flat(retrieval_metrics(*(ranks(matrix, test.caption_image) for ranks in (i2t_ranks, t2i_ranks))))
        recalls = "  ".join(f"{name} {value:6.2f}" for name, value in metrics.items() if "/r" in name or name == "rsum")
        print(f"{precision}  {recalls}  {seconds:.1f} s")


if __name__ == "__main__":
    main()
