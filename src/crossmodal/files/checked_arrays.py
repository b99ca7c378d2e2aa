"""NumPy's .npz and .npy files, checked before they are read: headers may claim more than the file holds."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.text_files import require_regular_file

Arrays = TypeVar("Arrays")

# What zipfile, NumPy and zlib raise at files that are damaged or forged.
DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    AttributeError,
    OverflowError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    tokenize.TokenError,
)
_RATIO = 200  # unpacked to packed size; arrays of numbers stay far below
_RATIO_FREE = 2**20  # bytes up to which the ratio does not matter


def read_npz(path: Path, what: str, *, advice: str = "", only: Container[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name: every one, or those of ``only``.

    Args:
        what: the file should be, for messages: "FILE: not readable as WHAT". advice: where there is no such file.

    Raises:
        UserError: missing, damaged, of Python objects, or an array that claims more values than the file holds.
    """
    require_regular_file(path, advice=advice)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if only is not None and member.filename.removesuffix(".npy") not in only:
                    continue
                if member.file_size > max(_RATIO_FREE, _RATIO * member.compress_size):
                    raise ValueError(f"{member.filename} unpacks from {member.compress_size:,} to {member.file_size:,}")
                with archive.open(member) as file:
                    _check_header(file, member.file_size, member.filename)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if only is None or name in only}
    except DAMAGED as error:
        raise UserError(f"{path}: not readable as {what} ({' '.join(str(error).split())[:200]})") from None


def read_npy(path: Path, what: str, *, advice: str = "", mapped: bool = False) -> np.ndarray:
    """The array of an .npy file; see ``read_npz``. ``mapped``: a memory map of it."""
    size = require_regular_file(path, advice=advice)
    try:
        with path.open("rb") as file:
            _check_header(file, size, path.name)
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(f"{path}: not readable as {what} ({' '.join(str(error).split())[:200]})") from None


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


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type of the array of an open .npy file, which is left at its values."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _check_header(file: BinaryIO, size: int, name: str) -> None:
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size:
        raise ValueError(f"{name} claims {claimed:,} bytes of {dtype} {shape}, {size:,} are there")
