"""Linear CCA of averaged regions and TF-IDF of words: what a model without learned networks reaches.

    python benchmarks/linear_cca.py

Run it at the root of the repository after ``dvc repro regions``. With X the training captions' images (means of their
regions) and Y the captions' TF-IDF, both centred, CCA finds the maps A and B by the singular value decomposition of
the whitened cross-covariance (Hotelling 1936; for images and text Gong et al., IJCV 2014):

    (Cx + rx I)^(-1/2) Cxy (Cy + ry I)^(-1/2) = U diag(s) V'
    A = (Cx + rx I)^(-1/2) U diag(s)^p,  B = (Cy + ry I)^(-1/2) V diag(s)^p

and scores a pair by the cosine of A'x and B'y. rx and ry (shares of the mean variance), the number of dimensions and p
are those with the highest rsum on the validation split; the test split is searched once. Needs no GPU.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.linalg import cholesky, solve_triangular, svd
from sklearn.feature_extraction.text import TfidfVectorizer

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import Split, require_split
from crossmodal.evaluation.metrics import i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.features.store import FeatureStore
from crossmodal.paths import DATASET, REGIONS

RIDGES = ((0.3, 0.3), (0.3, 1.0), (1.0, 0.3), (1.0, 1.0), (3.0, 1.0), (3.0, 3.0))  # rx, ry
DIMENSIONS, POWERS = (64, 128, 256, 512), (0.5, 1, 2)


def image_means(regions: FeatureStore, split: Split) -> np.ndarray:
    """Mean of each image's regions: (N, D)."""
    return np.stack([regions.read(row, "features").astype(np.float64).mean(axis=0) for row in split.images])


def cosine(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """(N, C)."""
    images, captions = (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in (images, captions))
    return images @ captions.T


def figures(split: Split, similarity: np.ndarray) -> dict:
    ranks = i2t_ranks(similarity, split.caption_image), t2i_ranks(similarity, split.caption_image)
    return retrieval_metrics(*ranks)


def canonical_maps(
    x: np.ndarray, y: np.ndarray, ridges: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (D, K), B (V, K) without their powers, and s (K,), of centred rows (C, D) and (C, V)."""
    roots = []
    for rows, ridge in zip((x, y), ridges, strict=True):
        covariance = rows.T @ rows / len(rows)
        covariance[np.diag_indices_from(covariance)] += ridge * np.trace(covariance) / len(covariance)
        roots.append(cholesky(covariance, lower=True))
    left = solve_triangular(roots[0], x.T @ y / len(x), lower=True)
    u, s, vt = svd(solve_triangular(roots[1], left.T, lower=True).T, full_matrices=False)
    return (*(solve_triangular(root.T, part) for root, part in zip(roots, (u, vt.T), strict=True)), s)


def main() -> None:
    dataset, regions = read_dataset(DATASET), FeatureStore(REGIONS)
    train, val, test = (require_split(dataset, name, regions.left_out) for name in ("train", "val", "test"))
    sentences = [caption for record in dataset.records for caption in record.captions]
    texts = {
        name: [sentences[row] for row in split.captions] for name, split in (("t", train), ("v", val), ("e", test))
    }
    words = TfidfVectorizer(min_df=5, sublinear_tf=True)
    x, y = image_means(regions, train)[train.caption_image], words.fit_transform(texts["t"]).toarray()
    centre = x.mean(axis=0), y.mean(axis=0)
    x, y = x - centre[0], y - centre[1]
    held = {
        name: (split, image_means(regions, split) - centre[0], words.transform(texts[name]).toarray() - centre[1])
        for name, split in (("v", val), ("e", test))
    }
    best, chosen = -1.0, None
    split, images, captions = held["v"]
    for ridges in RIDGES:
        a, b, s = canonical_maps(x, y, ridges)
        for size, power in product(DIMENSIONS, POWERS):
            maps = [part[:, :size] * s[:size] ** power for part in (a, b)]
            rsum = figures(split, cosine(images @ maps[0], captions @ maps[1]))["rsum"]
            if rsum > best:
                best, chosen = rsum, (ridges, min(size, len(s)), power, maps)
    ridges, size, power, maps = chosen
    print(f"{dataset.name}: {x.shape[1]:,} values of an image, {y.shape[1]:,} words")
    print(f"rx, ry {ridges}, {size} dimensions, p {power}: validation rsum {best:.1f}")
    split, images, captions = held["e"]
    found = figures(split, cosine(images @ maps[0], captions @ maps[1]))
    recalls = " ".join(f"{way}/{key} {found[way][key]:.1f}" for way in ("i2t", "t2i") for key in ("r1", "r5", "r10"))
    print(f"test: {recalls}, rsum {found['rsum']:.1f}")


if __name__ == "__main__":
    main()
