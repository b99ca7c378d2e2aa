"""Region features as MILVLG's bottom-up-attention.pytorch writes them, a file for each image:

<image>.npz   ``x``: (regions, size) float32, ``bbox``: (regions, 4) x1 y1 x2 y2 in pixels, ``image_w``, ``image_h``,
              and ``info``, a pickled dict that holds the two sizes again
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import DAMAGED, read_npz
from crossmodal.regions.precomputed.rows import as_features, as_shares, check_aspect, image_key, record_rows

_ARRAYS = ("x", "bbox", "image_w", "image_h")
_LONGEST_INFO = 2**20  # bytes


def holds_bottom_up_files(path: Path) -> bool:
    """Whether a folder is in this layout and not in that of ``files``, which has folders NAME_att and NAME_box."""
    return next(path.glob("*.npz"), None) is not None and not any(folder.is_dir() for folder in path.glob("*_att"))


class BottomUpReader:
    """The folder of the files. A FeatureReader.

    Raises:
        UserError: the first file is not in this layout.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.dataset, rows = dataset, record_rows(dataset)
        files = (file for file in sorted(path.glob("*.npz")) if file.is_file())
        self._files = {rows[key]: file for file in files if (key := image_key(file.stem)) in rows}
        self.problems: dict[int, str] = {}
        self.missing = [row for row in range(len(dataset.records)) if row not in self._files]
        self.arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self._files:
            first = next(iter(self._files.values()))
            size = as_features(_read(first)["x"], str(first)).shape[1]
            self.arrays = {"features": ("float16", (size,)), "boxes": ("float32", (4,))}

    def row(self, row: int) -> dict[str, np.ndarray]:
        path, record = self._files[row], self.dataset.records[row]
        content = _read(path)
        width, height = _image_size(path, content)
        check_aspect(record, width, height, str(path))
        features = as_features(content["x"], str(path), self.arrays["features"][1][0])
        return {"features": features, "boxes": as_shares(content["bbox"], width, height, len(features), str(path))}


def _read(path: Path) -> dict[str, np.ndarray]:
    content = read_npz(path, "an .npz of bottom-up features", only=_ARRAYS)
    if lacking := [name for name in ("x", "bbox") if name not in content]:
        raise UserError(f"{path}: holds no array named {' or '.join(lacking)}, as MILVLG's files do")
    return content


def _image_size(path: Path, content: dict[str, np.ndarray]) -> tuple[float, float]:
    """Width and height in pixels.

    Raises:
        UserError: they are neither in arrays nor in ``info``, or are no numbers.
    """
    names = ("image_w", "image_h")
    values = content if all(name in content for name in names) else _read_info(path)
    try:
        width, height = (float(values[name]) for name in names)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: holds no numbers image_w and image_h, nor does its info") from None
    return width, height


class _Opaque:
    """Stands for every object of a pickle that is not a plain one; nothing of what the pickle names is called."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Opaque]:
        return _Opaque

    def persistent_load(self, pid: Any) -> None:
        raise pickle.UnpicklingError("persistent ids are not taken")


def _read_info(path: Path) -> dict[str, Any]:
    """``info``, an array () of one dict; its arrays are left out. Empty where there is none or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("info.npy").file_size > _LONGEST_INFO:
                return {}
            file = io.BytesIO(archive.read("info.npy"))
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read(file)
        (info,) = _PlainUnpickler(file).load().state[-1]
    except (*DAMAGED, pickle.UnpicklingError, IndexError):
        return {}
    return info if isinstance(info, dict) else {}
