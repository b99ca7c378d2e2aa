"""SGRAF's large products on a CPU in compiled form, kernels.c, gradients.c and pairs.c, where there is a C compiler.

A block of rows is computed, squared and multiplied while the first cache holds it; torch reads each tile three times
and repacks the weights for every product. The library is compiled on first use, in two or three seconds, and kept in
the user's cache folder (XDG_CACHE_HOME, else ~/.cache). Without a compiler (``cc``, or what CC names) torch does the
work, with the same results but for rounding.

Files of C: products.c is included by kernels.c and gradients.c, and by way of pair_products.c, pair_scores.c and
pair_gradients.c by pairs.c.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from crossmodal.models.attention import EPS
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.terminal import warn

UNITS = [Path(__file__).with_name(f"{name}.c") for name in ("kernels", "gradients", "pairs")]  # compiled together
DEPTH, ROWS = 256, 14  # as in products.c, which the others include; the largest ROWS
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")


@dataclass(frozen=True)
class PackedMap:
    """The weight of a linear map, (S, E), as the library reads it, and its bias, (S,) fp32."""

    library: ctypes.CDLL
    weight: torch.Tensor
    bias: torch.Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.size[0]

    @property
    def bf16(self) -> bool:
        return self.weight.dtype == torch.bfloat16

    def fill_vectors(
        self,
        out: torch.Tensor,
        weights: torch.Tensor,
        values: torch.Tensor,
        targets: torch.Tensor,
        lengths: torch.Tensor | None = None,
    ) -> None:
        """N(W (weights . values - targets)^2 + b), equation (1), into a part (N, C, G, S) fp32 of a contiguous tensor.

        weights (N, C * G, R) and values (N, R, E) of the map's type, targets (C * G, E). ``lengths``: where the lengths
        that N divides by go, (N, C * G).
        """
        if not out.numel():  # captions of no word
            return
        images, captions, group, _ = out.shape
        regions, dim = values.shape[1:]
        if self.bf16 and regions % 2:
            weights = F.pad(weights, (0, 1))
        numbers = [images, captions * group, regions, dim, len(self), group, out.stride(1) // len(self)]
        tensors = weights.contiguous(), values.contiguous(), targets.float().contiguous(), self.weight, self.bias
        scratch = out.new_empty(DEPTH * (regions + 1))
        self.library.squared_differences(
            address(out),
            None if lengths is None else address(lengths),
            *(address(tensor) for tensor in (*tensors, scratch)),
            *map(ctypes.c_int, numbers),
            ctypes.c_float(EPS),
            ctypes.c_int(self.bf16),
        )


def reason(nodes: torch.Tensor, maps: Sequence[PackedMap], buffers: Buffers) -> torch.Tensor:
    """graph.py's steps without gradients: fp32 nodes (P, n, S), which are written over, to (P, S).

    ``maps``: query and update of each step.
    """
    nodes = nodes.contiguous()
    pairs, count, size = nodes.shape
    out, first = nodes.new_empty(pairs, size), maps[0]
    scratch = buffers.take("reasoning", nodes, nodes.numel() + ROWS * count)
    pointers = [address(tensor) for layer in maps for tensor in (layer.weight, layer.bias)]
    numbers = [pairs, count, size, len(maps) // 2, first.bf16]
    first.library.reason(
        address(out),
        address(nodes),
        (ctypes.c_void_p * len(pointers))(*pointers),
        address(scratch),
        *map(ctypes.c_int, numbers),
    )
    return out


def packs(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether there is compiled code for maps of this size, (S, E), or (S, S), and of this type on this machine."""
    if weight.device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    found = library()
    if found is None or (dtype == torch.bfloat16 and not found.has_bf16()):
        return False
    return all(size % found.width() == 0 for size in weight.shape)


def pack_map(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> PackedMap:
    """A map of (S, E), for which ``packs`` holds, in compiled form."""
    found = library()
    width, unit = found.width(), 4 // dtype.itemsize
    panels = weight.to(dtype).view(-1, width, weight.shape[1] // unit, unit).transpose(1, 2).contiguous()
    return PackedMap(found, panels, bias.float().contiguous(), tuple(weight.shape))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where there is no compiler, or it fails."""
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(compiler[0]) is None:
            return None
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossmodal"
        path = folder / f"sgraf-kernels-{_fingerprint(compiler)}.so"
        if not path.is_file():
            _compile(compiler, path)
        try:
            return _load(path)
        except (OSError, AttributeError):  # a damaged file, or one of a machine that shares the cache folder
            _compile(compiler, path)
            return _load(path)
    except (OSError, RuntimeError, ValueError, AttributeError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip() or str(error)
        warn(f"sgraf runs without its compiled kernels, slower: {' '.join(reason.split())[:300]}")
        return None


def _load(path: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(path))
    found.pair_scratch.restype = ctypes.c_ssize_t
    return found


def _compile(compiler: Sequence[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        command = [*compiler, *FLAGS, "-o", part, *UNITS, "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        part.replace(path)


def _fingerprint(compiler: Sequence[str]) -> str:
    """Hash of all that the library depends on: its source, the flags, the compiler and the processor."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=20).stdout
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]  # x86, Arm
    sources = [source.read_bytes() for source in sorted(UNITS[0].parent.glob("*.c"))]
    given = " ".join((*compiler[1:], *FLAGS)), platform.machine(), *features
    return hashlib.sha256(b"\0".join((*sources, version, *map(str.encode, given)))).hexdigest()[:16]


def address(tensor: torch.Tensor) -> ctypes.c_void_p:
    """Of a contiguous tensor, for the library."""
    return ctypes.c_void_p(tensor.data_ptr())
