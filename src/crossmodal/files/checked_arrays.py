"""NumPy's .npz and .npy files, read and checked: the sizes in headers are compared with the file's first."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

import numpy as np

from crossmodal.errors import UserError

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
    RecursionError,
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
    _plain_file(path, advice)
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


def read_npy(path: Path, what: str, *, advice: str = "") -> np.ndarray:
    """The array of an .npy file; see ``read_npz``."""
    _plain_file(path, advice)
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, path.name)
        return np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(f"{path}: not readable as {what} ({' '.join(str(error).split())[:200]})") from None


def _plain_file(path: Path, advice: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: not found{advice and f'; {advice}'}")
    if not path.is_file():
        raise UserError(f"{path}: not a plain file")


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
