"""Region features in a file of its own for each image, as the TERN projects keep them.

    NAME_att/<image>.npz   ``feat``: (regions, size) float32, or the same as .npy
    NAME_box/<image>.npy   (regions, 4) x1 y1 x2 y2 in pixels or as shares of the image, or .npz with ``feat``, or
                           (regions, 5) with their area, as kaylode/tern has them

The folder of boxes may be missing: the store then has none.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npy, read_npz
from crossmodal.regions.precomputed.rows import as_features, as_shares, image_key, record_rows

_SUFFIXES = (".npz", ".npy")


class FileReader:
    """The folder that holds NAME_att and, with boxes, NAME_box. A FeatureReader.

    Raises:
        UserError: no folder NAME_att there, or several.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        folders = sorted(folder for folder in path.glob("*_att") if folder.is_dir())
        if len(folders) != 1:
            names = ", ".join(folder.name for folder in folders) or "none"
            raise UserError(f"{path}: expected one folder NAME_att of feature files, found {names}")
        self.dataset, rows = dataset, record_rows(dataset)
        boxes = folders[0].with_name(folders[0].name.removesuffix("_att") + "_box")
        self._features = _files(folders[0], rows)
        self._boxes = _files(boxes, rows) if boxes.is_dir() else None
        self.problems: dict[int, str] = {}
        self.missing = [row for row in range(len(dataset.records)) if row not in self._features]
        self.arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self._features:
            first = next(iter(self._features.values()))
            self.arrays["features"] = ("float16", (as_features(_load(first), str(first)).shape[1],))
        if self._boxes is not None:
            self.arrays["boxes"] = ("float32", (4,))

    def row(self, row: int) -> dict[str, np.ndarray]:
        path = self._features[row]
        features = as_features(_load(path), str(path), self.arrays["features"][1][0])
        if self._boxes is None:
            return {"features": features}
        if row not in self._boxes:
            raise UserError(f"{path}: no file of boxes goes with it, as with the others")
        return {"features": features, "boxes": self._shares(row, len(features))}

    def _shares(self, row: int, regions: int) -> np.ndarray:
        path, record = self._boxes[row], self.dataset.records[row]
        boxes = _load(path)
        if boxes.ndim == 2 and boxes.shape[1] == 5:  # kaylode/tern: the area comes last
            boxes = boxes[:, :4]
        return as_shares(boxes, record.width, record.height, regions, str(path))


def _files(folder: Path, rows: dict[str, int]) -> dict[int, Path]:
    """File of every image of the dataset that has one."""
    paths = (path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.is_file())
    return {rows[key]: path for path in paths if (key := image_key(path.stem)) in rows}


def _load(path: Path) -> np.ndarray:
    """The one array of a file.

    Raises:
        UserError: damaged, or an .npz without ``feat``.
    """
    what = "an .npz or .npy file"
    if not zipfile.is_zipfile(path):
        return read_npy(path, what)
    arrays = read_npz(path, what)
    if "feat" not in arrays:
        raise UserError(f"{path}: holds no array named feat")
    return arrays["feat"]
