"""Similarity matrices, pairs and relevances read from files and checked.

Arrays are NumPy's .npy and are mapped, not read. Nothing is unpickled: a file of Python objects is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.evaluation.ranking import Pairs
from crossmodal.files.checked_arrays import read_npy
from crossmodal.files.text_files import read_text

_CHUNK = 256  # rows checked together
_NPY = "a .npy array of numbers"


def read_similarity(path: Path) -> np.ndarray:
    """Similarity (images, captions) as float32 or float64, higher is more alike.

    Raises:
        UserError: not a .npy file of real numbers in two dimensions, empty, or with NaN.
    """
    matrix = _read_matrix(path, "images x captions")
    for start, block in _row_blocks(matrix):
        if np.isnan(block.max(axis=1)).any():
            row, column = np.argwhere(np.isnan(block))[0]
            raise UserError(
                f"{path}: NaN at row {start + row}, column {column}; every image-caption pair needs a score"
            )
    return matrix


def read_relevance(path: Path, images: int, captions: int) -> np.ndarray:
    """Relevance of image to caption, (captions, images): float32 or float64, 0 or more.

    Raises:
        UserError: not such a file, not of that shape, or with NaN, infinite or negative values.
    """
    matrix = _read_matrix(path, "captions x images")
    if matrix.shape != (captions, images):
        turned = "; transpose it" if matrix.shape == (images, captions) else ""
        raise UserError(f"{path}: shape {matrix.shape}, expected captions x images ({captions}, {images}){turned}")
    for start, block in _row_blocks(matrix):
        good = (block >= 0) & (block < np.inf)
        if not good.all():
            row, column = (int(indices[0]) for indices in np.nonzero(~good))
            value = block[row, column]
            raise UserError(
                f"{path}: {value} at row {start + row}, column {column}; relevance is finite and not negative"
            )
    return matrix


def equal_pairs(images: int, captions: int, captions_per_image: int) -> Pairs:
    """Caption j belongs to image j // captions_per_image; a UserError where the numbers do not fit."""
    if captions != images * captions_per_image:
        turned = " (rows are images: is it transposed?)" if images == captions * captions_per_image else ""
        raise UserError(
            f"{images} images x {captions} captions{turned}: not {captions_per_image} captions for each image; "
            "--captions-per-image or --pairs tells which belong to which"
        )
    return Pairs.of_captions(np.arange(captions) // captions_per_image)


def read_pairs(path: Path, images: int, captions: int) -> Pairs:
    """Pairs of images and captions that belong together, counted from 0.

    The file is .npy or text, commas or spaces between numbers. One column: the image of each caption, in the captions'
    order. Two columns: image and caption of each pair, in any order, any number of pairs an image or caption.

    Raises:
        UserError: not such a file; numbers out of range; a pair twice; one column that is not one number a caption.
    """
    table = read_npy(path, _NPY, mapped=True) if path.suffix == ".npy" else _read_table(path)
    if table.dtype.kind not in "iu" or table.ndim not in (1, 2) or (table.ndim == 2 and table.shape[1] not in (1, 2)):
        raise UserError(f"{path}: {table.dtype} {table.shape}, expected whole numbers in one or two columns")
    if not len(table):
        raise UserError(f"{path}: empty, expected pairs of images and captions")
    columns = table.reshape(len(table), -1).astype(np.int64)
    if columns.shape[1] == 1:
        if len(columns) != captions:
            raise UserError(f"{path}: the images of {len(columns)} captions, the matrix has {captions} captions")
        columns = np.column_stack([columns[:, 0], np.arange(captions)])
    for name, column, count in zip(("image", "caption"), columns.T, (images, captions), strict=True):
        if column.min() < 0 or column.max() >= count:
            wrong = column[(column < 0) | (column >= count)][0]
            raise UserError(f"{path}: {name} {wrong}, expected 0 to {count - 1}")
    if len(np.unique(columns, axis=0)) < len(columns):
        raise UserError(f"{path}: the same pair more than once")
    return Pairs(columns[:, 0], columns[:, 1])


def _read_matrix(path: Path, axes: str) -> np.ndarray:
    matrix = read_npy(path, _NPY, mapped=True)
    if matrix.dtype.kind not in "fiub":
        raise UserError(f"{path}: values of type {matrix.dtype}, expected real numbers")
    if matrix.ndim != 2 or not matrix.size:
        raise UserError(f"{path}: shape {matrix.shape}, expected {axes}")
    narrow = matrix.itemsize <= (4 if matrix.dtype.kind == "f" else 2)  # exact in 32 bits
    return matrix.astype(np.float32 if narrow else np.float64, copy=False)


def _read_table(path: Path) -> np.ndarray:
    rows = [line.replace(",", " ").split() for line in read_text(path).split("\n") if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}, row {number}: {len(row)} numbers, the first row has {len(rows[0])}")
    try:
        return np.array([[int(value) for value in row] for row in rows], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: not whole numbers ({error})") from None


def _row_blocks(matrix: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(matrix), _CHUNK):
        yield start, matrix[start : start + _CHUNK]
