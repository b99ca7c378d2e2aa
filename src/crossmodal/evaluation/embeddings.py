"""Similarity of embeddings that others have made, one file a side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npy


def read_cosines(images: Path, captions: Path) -> np.ndarray:
    """Cosine of every image with every caption: (N, C) float32, from two .npy files (N, E) and (C, E).

    Raises:
        UserError: not .npy files of real numbers in two dimensions, of unequal widths, or with a vector that has no
            direction.
    """
    rows, columns = _unit_vectors(images), _unit_vectors(captions)
    if rows.shape[1] != columns.shape[1]:
        raise UserError(f"{captions}: {columns.shape[1]} dimensions, {images} has {rows.shape[1]}")
    return rows @ columns.T


def _unit_vectors(path: Path) -> np.ndarray:
    vectors = read_npy(path, "a .npy array of numbers")
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or not vectors.size:
        raise UserError(f"{path}: {vectors.dtype} {vectors.shape}, expected real numbers, items x dimensions")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    wrong = ~(np.isfinite(lengths) & (lengths > 0))[:, 0]
    if wrong.any():
        raise UserError(f"{path}: row {int(wrong.argmax())} has the length {lengths[wrong][0, 0]:g}, and no direction")
    return (vectors / lengths).astype(np.float32)
