"""Region features in a file for each image, in the layouts of two families of projects.

TERN:
    NAME_att/<image>.npz   ``feat``: (regions, size) float32, or the same as .npy
    NAME_box/<image>.npy   (regions, 4) x1 y1 x2 y2 in pixels or as shares of the image, or .npz with ``feat``, or
                           (regions, 5) with their area, as kaylode/tern has them; optional
MILVLG's bottom-up-attention.pytorch:
    <image>.npz            ``x``: (regions, size) float32, ``bbox``: (regions, 4) x1 y1 x2 y2 in pixels, ``image_w``,
                           ``image_h``, and ``info``, a pickled dict that holds the two sizes again
"""

from __future__ import annotations

import io
import pickle
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import DAMAGED, read_header, read_npy, read_npz
from crossmodal.regions.precomputed.rows import (
    FeatureReader,
    as_features,
    as_shares,
    check_aspect,
    image_key,
    record_rows,
)

_SIZES = ("image_w", "image_h")
_LONGEST_INFO = 2**20  # bytes


def open_files(path: Path, dataset: Dataset) -> FeatureReader:
    """The reader of a folder, by its layout."""
    folders = sorted(folder for folder in path.glob("*_att") if folder.is_dir())
    if not folders and next(path.glob("*.npz"), None) is not None:
        return MilvlgReader(path, dataset)
    if len(folders) != 1:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise UserError(f"{path}: expected one folder NAME_att of feature files, found {names}")
    return TernReader(folders[0], dataset)


class _FileReader(FeatureReader):
    pattern = "*.np[yz]"

    def __init__(self, folder: Path, dataset: Dataset, *others: str) -> None:
        self.files = _files(folder, self.pattern, record_rows(dataset))
        first = next(iter(self.files.values()), None)
        size = as_features(self.load(first), str(first)).shape[1] if first else 0
        super().__init__(dataset, self.files, size, *others)

    @abstractmethod
    def load(self, path: Path) -> np.ndarray:
        """The features in a file."""


class TernReader(_FileReader):
    """The files of ``folder`` NAME_att and, with boxes, of NAME_box."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        boxes = folder.with_name(f"{folder.name.removesuffix('_att')}_box")
        self._boxes = _files(boxes, self.pattern, record_rows(dataset)) if boxes.is_dir() else None
        super().__init__(folder, dataset, *(() if self._boxes is None else ("boxes",)))

    def load(self, path: Path) -> np.ndarray:
        what = "an .npz or .npy file"
        if not zipfile.is_zipfile(path):
            return read_npy(path, what)
        arrays = read_npz(path, what)
        if "feat" not in arrays:
            raise UserError(f"{path}: holds no array named feat")
        return arrays["feat"]

    def row(self, row: int) -> dict[str, np.ndarray]:
        path, record = self.files[row], self.dataset.records[row]
        features = as_features(self.load(path), str(path), self.size)
        if self._boxes is None:
            return {"features": features}
        if row not in self._boxes:
            raise UserError(f"{path}: has no file of boxes, as the others have")
        boxes = self.load(self._boxes[row])
        if boxes.ndim == 2 and boxes.shape[1] == 5:  # kaylode/tern: the area comes last
            boxes = boxes[:, :4]
        boxes = as_shares(boxes, record.width, record.height, len(features), str(self._boxes[row]))
        return {"features": features, "boxes": boxes}


class MilvlgReader(_FileReader):
    """The files of a folder."""

    pattern = "*.npz"

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        super().__init__(folder, dataset, "boxes")

    def load(self, path: Path) -> np.ndarray:
        return _read(path)["x"]

    def row(self, row: int) -> dict[str, np.ndarray]:
        path, where = self.files[row], str(self.files[row])
        content = _read(path)
        values = content if all(name in content for name in _SIZES) else _read_info(path)
        try:
            width, height = (float(values[name]) for name in _SIZES)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{path}: holds no numbers image_w and image_h, nor does its info") from None
        check_aspect(self.dataset.records[row], width, height, where)
        features = as_features(content["x"], where, self.size)
        return {"features": features, "boxes": as_shares(content["bbox"], width, height, len(features), where)}


def _files(folder: Path, pattern: str, rows: dict[str, int]) -> dict[int, Path]:
    """File of every image of the dataset that has one.

    Raises:
        UserError: an image has two.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob(pattern)):
        if not path.is_file() or (key := image_key(path.stem)) not in rows:
            continue
        if (other := files.setdefault(rows[key], path)) != path:
            raise UserError(f"{path}: a second file of the image that {other.name} is of; keep one of them")
    return files


def _read(path: Path) -> dict[str, np.ndarray]:
    content = read_npz(path, "an .npz of bottom-up features", only=("x", "bbox", *_SIZES))
    if lacking := [name for name in ("x", "bbox") if name not in content]:
        raise UserError(f"{path}: holds no array named {' or '.join(lacking)}, as MILVLG's files do")
    return content


class _Opaque:
    """Replaces every object of a pickle that is not a plain one; nothing that the pickle names is called."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Opaque]:
        return _Opaque


def _read_info(path: Path) -> dict[str, Any]:
    """``info``, an array () of one dict, without its arrays. Empty where there is none or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("info.npy").file_size > _LONGEST_INFO:
                return {}
            file = io.BytesIO(archive.read("info.npy"))
        read_header(file)
        (info,) = _PlainUnpickler(file).load().state[-1]
    except (*DAMAGED, pickle.UnpicklingError, IndexError):
        return {}
    return info if isinstance(info, dict) else {}
