"""Does the best score tell whether the image that was asked for is in the gallery? Measured on the test split.

    python benchmarks/nothing_fits.py                      # models/matcher, the threshold of results/evaluation
    python benchmarks/nothing_fits.py --images 1000        # with at most so many of the test images

Run it at the root of the repository after ``dvc repro``. Half of the images, drawn at random, are taken out of the
gallery; every test caption is a query, those of the other half finding their own image there, those of the half that
was taken out not. Printed: the area under the ROC curve of the best score, and of each kind of query the share below
the threshold (retrieval.threshold).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from scipy.stats import mannwhitneyu

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import first_images, split_rows
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.checkpoint import load_matcher
from crossmodal.retrieval.gallery import read_threshold
from crossmodal.retrieval.threshold import measure_threshold
from crossmodal.runtime import pick_device
from crossmodal.serving.session import Folders
from crossmodal.settings.params import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=0, help="0: all of the test split")
    arguments = parser.parse_args()
    folders, settings = Folders(), load_params().evaluate
    dataset, regions, words = (
        read_dataset(folders.dataset),
        FeatureStore(folders.regions),
        FeatureStore(folders.captions),
    )
    model, config = load_matcher(folders.matcher)
    split = first_images(split_rows(dataset, "test", regions.left_out), arguments.images)
    inputs = SearchInputs(model.to(pick_device()), regions, words, split, settings.batch_size, config)
    threshold = read_threshold(folders.evaluation, config.key)
    if threshold is None:
        validation = split_rows(dataset, "val", regions.left_out)
        threshold = measure_threshold(replace(inputs, split=validation), settings.threshold)
    there = np.random.default_rng(0).permutation(len(split.images)) < len(split.images) // 2
    best, own = similarity_matrix(inputs)[there].max(axis=0), there[split.caption_image]
    print(f"{config.model} on {dataset.name}, {there.sum():,} images in the gallery")
    area = mannwhitneyu(best[own], best[~own]).statistic / (own.sum() * (~own).sum())
    print(f"area under the ROC curve of the best score: {area:.3f}")
    if threshold is not None:
        for name, scores in (("in the gallery", best[own]), ("taken out", best[~own])):
            below = 100 * (scores < threshold.score).mean()
            print(f"queries whose image is {name}: {below:.1f} % below {threshold.score:.3f}, of {len(scores):,}")


if __name__ == "__main__":
    main()
