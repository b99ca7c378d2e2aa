"""A dataclass of arrays in one .npz file, as the evaluate stage writes them."""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npz

Arrays = TypeVar("Arrays")


def save_arrays(arrays: Any, path: Path) -> None:
    """Write the fields of a dataclass by their names, the same bytes for the same arrays.

    Not ``np.savez``: it streams members of unknown size, whose zip headers differ between versions of Python.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for field in fields(arrays):
            content = io.BytesIO()
            np.save(content, getattr(arrays, field.name), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{field.name}.npy"), content.getbuffer())


def load_arrays(kind: type[Arrays], path: Path) -> Arrays:
    """Read what ``save_arrays`` wrote of a dataclass ``kind``.

    Raises:
        UserError: missing, unreadable, or of other fields.
    """
    what = "what the evaluate stage writes"
    arrays = read_npz(path, what, advice="run the evaluate stage first")
    try:
        return kind(**arrays)
    except TypeError as error:
        raise UserError(f"{path}: not readable as {what} ({error})") from None
