"""A dataclass of arrays in one .npz file, as the evaluate stage leaves them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npz

Arrays = TypeVar("Arrays")


def save_arrays(arrays: Any, path: Path) -> None:
    """Write the fields of a dataclass by their names, the same bytes for the same arrays."""
    np.savez(path, **{field.name: getattr(arrays, field.name) for field in fields(arrays)})


def load_arrays(kind: type[Arrays], path: Path) -> Arrays:
    """Read what ``save_arrays`` wrote of a dataclass ``kind``.

    Raises:
        UserError: missing, unreadable, or of other fields.
    """
    arrays = read_npz(path, "what the evaluate stage writes", advice="run the evaluate stage first")
    try:
        return kind(**arrays)
    except TypeError as error:
        raise UserError(f"{path}: not readable as what the evaluate stage writes ({error})") from None
