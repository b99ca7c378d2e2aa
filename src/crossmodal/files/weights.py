"""Weights in .safetensors files, read and compared with the network that they are for before it takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from crossmodal.errors import UserError, first_line

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FLOAT_NAMES = ("F32", "F16", "BF16", "F64")  # in a file
# What safetensors and torch raise at a file that is damaged, or of a type of number that one of them does not know.
_DAMAGED = (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, OverflowError)


def read_tensors(path: Path, *, name: str = "", advice: str = "") -> dict[str, Tensor]:
    """Every tensor of a .safetensors file, on the CPU.

    Args:
        name: of the file in messages, where that is not ``path``. advice: what to do where there is no such file.

    Raises:
        UserError: missing, or damaged.
    """
    name = name or str(path)
    if not path.is_file():
        raise UserError(f"{name}: not found{advice and f'; {advice}'}")
    try:
        return load_file(path)
    except _DAMAGED as error:
        raise UserError(f"{name}: not a readable safetensors file ({first_line(error)})") from None


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, what: str) -> None:
    """Check that the tensors of a file are those of a network; floats may be of another precision, and are finite.

    Args:
        expected: the network's state dict; on the meta device it takes no memory.
        name: of the file. what: whose weights they should be, e.g. "this tern model"; both for messages.

    Raises:
        UserError: an entry is missing, unknown, of another shape or type of number, or not finite; names it.
    """
    for key in sorted(set(expected) ^ set(tensors)):
        verb = "lacks" if key in expected else "holds unknown"
        raise UserError(f"{name}: not the weights of {what}: {verb} {key!r}")
    for key, value in tensors.items():
        wanted = expected[key]
        if value.shape != wanted.shape:
            raise UserError(
                f"{name}: not the weights of {what}: {key!r} is {tuple(value.shape)}, expected {tuple(wanted.shape)}"
            )
        kind = str(wanted.dtype).removeprefix("torch.")
        if value.dtype not in (_FLOATS if wanted.dtype in _FLOATS else (wanted.dtype,)):
            raise UserError(f"{name}: {key!r} holds {str(value.dtype).removeprefix('torch.')}, expected {kind}")
        if not _finite_as(value, wanted.dtype):
            raise UserError(f"{name}: {key!r} holds values that are not finite {kind} numbers")


def check_folder(folder: Path) -> None:
    """Check that all .safetensors files of a folder hold finite floats; integers only as counters or positions.

    Raises:
        UserError: names the file and the entry.
    """
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dict
                    kind = file.get_slice(key).get_dtype()
                    if kind not in _FLOAT_NAMES and (kind != "I64" or key.endswith((".weight", ".bias"))):
                        raise UserError(f"{path}: {key!r} holds {kind}, expected one of {', '.join(_FLOAT_NAMES)}")
                    if kind in _FLOAT_NAMES and not _finite_as(file.get_tensor(key), torch.float32):
                        raise UserError(f"{path}: {key!r} holds values that are not finite")
        except _DAMAGED as error:
            raise UserError(f"{path}: not a readable safetensors file ({first_line(error)})") from None


def _finite_as(value: Tensor, dtype: torch.dtype) -> bool:
    """Whether all values are finite numbers of ``dtype``; without a copy of them."""
    if dtype not in _FLOATS or not value.numel():
        return True
    low, high = (float(end) for end in value.aminmax())
    most = torch.finfo(dtype).max
    return -most <= low and high <= most  # false for NaN, which aminmax hands on
