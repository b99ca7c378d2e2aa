"""A dataclass of arrays in one .npz file, as the evaluate stage leaves them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np

from crossmodal.errors import UserError

Arrays = TypeVar("Arrays")


def save_arrays(arrays: Any, path: Path) -> None:
    """Write the fields of a dataclass by their names, the same bytes for the same arrays."""
    np.savez(path, **{field.name: getattr(arrays, field.name) for field in fields(arrays)})


def load_arrays(kind: type[Arrays], path: Path) -> Arrays:
    """Read what ``save_arrays`` wrote of a dataclass ``kind``.

    Raises:
        UserError: missing, unreadable, or of other fields.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return kind(**{name: arrays[name] for name in arrays.files})
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run the evaluate stage first") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path}: not readable as what the evaluate stage writes ({error})") from None
