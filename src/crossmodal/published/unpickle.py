"""Pickles that other projects published, read as data: nothing in a file is imported or run.

A ``torch.save`` file goes through torch's weights-only reader, which looks every name up in a list instead of importing
it. Added to the list are a command line (argparse.Namespace) and NumPy scalars (a best recall). Pickles of a vocabulary
and of NumPy arrays have shorter lists. Any other name is refused, and named.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from crossmodal.errors import UserError


class _Dtype:
    """numpy.dtype as a pickle describes it: the code of a type, and a byte order set afterwards."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise pickle.UnpicklingError(f"NumPy scalar of type {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(f"{self.order}{self.code}")


def _scalar(dtype: _Dtype, content: bytes) -> int | float | bool:
    """A NumPy scalar's value as Python's own number."""
    return np.frombuffer(content, dtype=dtype.numpy).item()


# By their name in the file. NumPy's own functions are not called: the state of a pickled dtype can be forged.
_BESIDE_TENSORS = [
    (argparse.Namespace, "argparse.Namespace"),
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def read_checkpoint(path: Path) -> Any:
    """Content of a ``torch.save`` file, zip or legacy format, its tensors on the CPU.

    Raises:
        UserError: missing; not such a file; or it holds something that is neither a tensor, plain data, an
            argparse.Namespace nor a NumPy scalar.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found")
    try:
        if zipfile.is_zipfile(path):
            _refuse_packed(path)
        with torch.serialization.safe_globals(_BESIDE_TENSORS):
            content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_expanded(path, content)
        return content
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in any of torch.load's readers
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        if unknown:
            raise UserError(_refusal(path, unknown[1])) from None
        # torch's own message would advise to read the file without protection
        raise UserError(f"{path}: not a checkpoint that torch.save wrote, or damaged") from None


def _refuse_packed(path: Path) -> None:
    """torch.save stores: a member that unpacks to more than the file has is a bomb."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > member.compress_size:
                raise UserError(
                    f"{path}: {member.filename!r} unpacks from {member.compress_size:,} to {member.file_size:,} bytes, "
                    "which torch.save never packs"
                )


def _refuse_expanded(path: Path, content: Any) -> None:
    """See that every tensor has as many values as the file holds for it: with strides of 0 a few claim any number."""
    seen: set[int] = set()
    left = [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UserError(f"{path}: a tensor of {tuple(value.shape)} has fewer values in the file than that")
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, argparse.Namespace):
            left += vars(value).values()


def read_vocabulary_pickle(path: Path) -> dict[str, Any]:
    """The attributes of a pickled ``Vocabulary``, whatever its module was called, or a pickled dict.

    Raises:
        UserError: missing; not a pickle; or it holds anything but a Vocabulary of plain data.
    """
    vocabulary = type("Vocabulary", (), {})  # of this file's own, so that nothing of it outlives the reader

    def reconstruct(cls: type, base: type, state: None) -> Any:
        if cls is not vocabulary or base is not object:
            raise pickle.UnpicklingError("an object of another class")
        return vocabulary()

    # Protocols 0 to 2 give modules Python 2's names; 0 and 1 make objects by a call.
    names = {"Vocabulary": vocabulary, "builtins.object": object, "__builtin__.object": object}
    names |= {"copyreg._reconstructor": reconstruct, "copy_reg._reconstructor": reconstruct}
    content = _unpickled(path, names, "utf-8", "pickled vocabulary")
    return content if isinstance(content, dict) else getattr(content, "__dict__", {})


def read_array_pickle(path: Path) -> Any:
    """A pickle of plain containers and NumPy arrays of numbers, as detectron2 and Caffe2 projects publish weights.

    Raises:
        UserError: missing; not a pickle; or it holds anything but plain data and arrays of numbers.
    """
    return _unpickled(path, _ARRAYS, "latin1", "pickle of NumPy arrays")


class _UnknownNameError(pickle.UnpicklingError):
    """A name that is not on the list."""


class _Unpickler(pickle.Unpickler):
    """Finds the names of a list alone, with their modules or without, and takes the list's objects for them."""

    def __init__(self, file: BinaryIO, names: Mapping[str, Any], encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        for known in (f"{module}.{name}", name):
            if known in self._names:
                return self._names[known]
        raise _UnknownNameError(f"{module}.{name}")


def _unpickled(path: Path, names: Mapping[str, Any], encoding: str, what: str) -> Any:
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, names, encoding).load(), {})
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except _UnknownNameError as error:
        raise UserError(_refusal(path, str(error))) from None
    except Exception:  # a damaged pickle fails in many ways
        raise UserError(f"{path}: not a {what}, or damaged") from None


class _Array:
    """numpy.ndarray as a pickle describes it: an empty one, its state set afterwards."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):  # pickled by Python 2
            content = content.encode("latin1")
        self.value = _from_buffer(content, dtype, shape, "F" if fortran else "C")


def _from_buffer(content: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """An array of pickle protocol 5."""
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array without a type")
    return np.frombuffer(content, dtype=dtype.numpy).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct_array(cls: type, shape: tuple[int, ...], code: bytes | str) -> _Array:
    if cls is not _Array:
        raise pickle.UnpicklingError("an array of another class")
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 of Python 3 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


_ARRAYS = {
    "collections.OrderedDict": dict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # how those protocols write none
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
} | {
    f"numpy.{core}.{name}": stands_in
    for core in ("core", "_core")
    for name, stands_in in (
        ("multiarray.scalar", _scalar),
        ("multiarray._reconstruct", _reconstruct_array),
        ("numeric._frombuffer", _from_buffer),
    )
}


def _plain(content: Any, done: dict[int, Any]) -> Any:
    """The content with arrays for their stand-ins; ``done``: containers converted so far, each once."""
    if id(content) not in done:
        if isinstance(content, dict):
            done[id(content)] = {name: _plain(value, done) for name, value in content.items()}
        elif isinstance(content, list | tuple):
            done[id(content)] = type(content)([_plain(value, done) for value in content])
        else:
            return content.value if isinstance(content, _Array) else content
    return done[id(content)]


def _refusal(path: Path, name: str) -> str:
    return f"{path}: refers to {name}, which no published checkpoint needs; nothing of the file was run"
