"""Region features as SCAN, SGRAF and VSE-infinity keep them, a few files for each split:

    {split}_ims.npy    (images, regions, size) float32; an image with five captions once, or five times in a row
    {split}_caps.txt   a caption per line, those of one image in a row
    {split}_ids.txt    ids of the images (optional)

There are no boxes. With ``grid`` the regions are the cells of a square grid in reading order, or the array is
(images, size, rows, columns) or (images, rows, columns, size), and cells have boxes.

Rows are matched with the dataset's images by id if all are ids of the dataset (other projects number images in their
own way), else by the letters and digits of their captions.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import SPLITS, Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npy
from crossmodal.files.text_files import read_text, split_lines
from crossmodal.regions.grid import cell_boxes
from crossmodal.regions.precomputed.rows import FeatureReader, as_features, image_key, record_rows

NAMES = {"train": ("train",), "val": ("dev", "val"), "test": ("testall", "test"), "probe": ("probe",)}
REPEATS = 5  # captions of an image, and its rows where it is repeated


class ScanReader(FeatureReader):
    """The files of a folder, memory-mapped. Trailing regions of zeros are padding and are dropped.

    Raises:
        UserError: no such files, or they do not go together: their numbers of rows and lines, or their captions
            and those of the dataset.
    """

    def __init__(self, path: Path, dataset: Dataset, *, grid: bool) -> None:
        self._images: dict[int, tuple[_SplitFiles, int]] = {}  # row -> files, number of the image in them
        by_id, shapes = record_rows(dataset), {}
        for split in SPLITS:
            rows = dataset.rows(split)
            if not rows or not (files := _choose(path, split, len(rows))):
                continue
            if files.step == files.per_image == 1 < min(len(dataset.records[row].captions) for row in rows):
                raise UserError(
                    f"{files.path}: has a row for each caption, but images are not {REPEATS} times in a row"
                )
            shapes[files.path] = files.images.shape[1:]
            owners = files.owners_by_id(dataset, by_id) or files.owners_by_caption(dataset, rows)
            for image, row in enumerate(owners):
                if row is not None:
                    self._images.setdefault(row, (files, image))
        if not shapes:
            raise UserError(f"{path}: holds no train_ims.npy, dev_ims.npy or test_ims.npy")
        if len({(len(shape), shape if grid else shape[-1:]) for shape in shapes.values()}) > 1:
            found = ", ".join(f"{file.name} {shape}" for file, shape in shapes.items())
            raise UserError(f"{path}: shapes of images differ: {found}")
        shape = next(iter(shapes.values()))
        if not grid and len(shape) not in (1, 2):
            raise UserError(f"{path}: images are {shape}, expected (regions, size); of a grid: precomputed.format grid")
        rows, columns, size, self._channels_first = _grid_layout(path, shape) if grid else (0, 0, shape[-1], False)
        self._boxes = cell_boxes(rows, columns) if grid else None
        super().__init__(dataset, self._images, size, *(("boxes",) if grid else ()))

    def row(self, row: int) -> dict[str, np.ndarray]:
        files, image = self._images[row]
        where = f"{files.path}, image {image}"
        values = np.asarray(files.image(image))
        if self._boxes is not None:
            cells = values.reshape(self.size, -1).T if self._channels_first else values.reshape(-1, self.size)
            return {"features": as_features(cells, where), "boxes": self._boxes}
        features = as_features(np.atleast_2d(values), where)
        real = np.flatnonzero(features.any(axis=1))
        return {"features": features[: real[-1] + 1 if len(real) else 1]}


class _SplitFiles:
    """The files of one split; ``images`` is the array as it is, ``count`` the number of different images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = read_npy(path, "a .npy file", mapped=True)
        if self.images.ndim < 2:
            raise UserError(f"{path}: shape {self.images.shape}, expected (images, regions, size)")
        self.name = path.name.removesuffix("_ims.npy")
        self.captions = _lines(path.with_name(f"{self.name}_caps.txt"))
        rows, captions = len(self.images), len(self.captions)
        repeated = rows == captions and rows % REPEATS == 0
        if repeated and all(np.array_equal(self.images[0], self.images[row]) for row in range(1, REPEATS)):
            self.step, self.per_image = REPEATS, REPEATS
        elif rows and captions % rows == 0 and captions:
            self.step, self.per_image = 1, captions // rows
        else:
            raise UserError(
                f"{path}: {rows:,} images, {self.name}_caps.txt has {captions:,} captions: not the same number each"
            )
        self.count = rows // self.step

    def image(self, number: int) -> np.ndarray:
        """The array of one image.

        Raises:
            UserError: its repetitions differ.
        """
        first, last = self.images[number * self.step], self.images[number * self.step + self.step - 1]
        if self.step > 1 and not np.array_equal(first, last):
            raise UserError(f"{self.path}: rows of image {number} differ, expected it {self.step} times in a row")
        return first

    def captions_of(self, number: int) -> list[str]:
        return self.captions[number * self.per_image : (number + 1) * self.per_image]

    def owners_by_id(self, dataset: Dataset, rows: dict[str, int]) -> list[int] | None:
        """Row of the dataset for every image; None without a file of ids, or if they are not the dataset's.

        Raises:
            UserError: they are, but an image shares no caption with the dataset's.
        """
        path = self.path.with_name(f"{self.name}_ids.txt")
        if not path.is_file():
            return None
        ids = [image_key(line) for line in _lines(path)]
        if len(ids) == self.count * self.per_image:
            ids = ids[:: self.per_image]
        if len(ids) != self.count or len(set(ids)) != len(ids) or not set(ids) <= set(rows):
            return None
        for image, name in enumerate(ids):
            own = {_letters(caption) for caption in dataset.records[rows[name]].captions}
            if not own.intersection(map(_letters, self.captions_of(image))):
                raise UserError(
                    f"{path}, image {image}: {self.name}_caps.txt has other captions of it than {dataset.name}"
                )
        return [rows[name] for name in ids]

    def owners_by_caption(self, dataset: Dataset, rows: list[int]) -> list[int | None]:
        """Row of the dataset for every image, None for an image that the split does not have.

        Raises:
            UserError: no image's captions are the dataset's.
        """
        known: dict[str, list[int]] = {}
        for row in rows:
            for caption in dataset.records[row].captions:
                known.setdefault(_letters(caption), []).append(row)
        owners, taken = [], set()
        for image in range(self.count):
            captions = self.captions_of(image)
            votes = Counter(row for caption in captions for row in set(known.get(_letters(caption), ())))
            candidates = [row for row, count in votes.most_common() if 2 * count >= len(captions) and row not in taken]
            owners.append(candidates[0] if candidates else None)
            taken |= set(candidates[:1])
        if not taken:
            raise UserError(f"{self.path.with_name(f'{self.name}_caps.txt')}: not the captions of {dataset.name}")
        return owners


def _grid_layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """Rows and columns of a grid, size of a feature, and whether it comes first in the array of an image.

    Of (cells, size), (size, rows, columns) or (rows, columns, size), the largest of three being the size.
    """
    if len(shape) == 2 and math.isqrt(shape[0]) ** 2 == shape[0]:
        side = math.isqrt(shape[0])
        return side, side, shape[1], False
    if len(shape) == 3:
        return (*shape[1:], shape[0], True) if shape[0] > shape[2] else (*shape, False)
    raise UserError(
        f"{path}: images are {shape}, expected (cells, size) of a square grid, (size, rows, columns) "
        "or (rows, columns, size)"
    )


def _choose(path: Path, split: str, images: int) -> _SplitFiles | None:
    """The files of a split: those with its number of images, else those with most; None: there are none."""
    found = [_SplitFiles(file) for name in NAMES[split] if (file := path / f"{name}_ims.npy").is_file()]
    return max(found, key=lambda files: (files.count == images, files.count), default=None)


def _lines(path: Path) -> list[str]:
    try:
        return split_lines(read_text(path, errors="replace"))
    except UserError as error:
        raise UserError(f"{error}; it belongs to the .npy file of the same name") from None


def _letters(caption: str) -> str:
    return "".join(character for character in caption.lower() if character.isalnum())
