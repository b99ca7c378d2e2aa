"""Runtime helpers: project root, paths of settings, device, precision, seeds, progress bars, free disk space.

torch is imported by the functions that need it: a second that stages and commands without tensors are spared.
"""

from __future__ import annotations

import ctypes
import functools
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from crossmodal.errors import UserError, first_of_several
from crossmodal.terminal import printable, warn

if TYPE_CHECKING:
    import torch

# Of torch.cpu.get_capabilities: what x86 and ARM processors multiply matrices of a type with.
CPU_INSTRUCTIONS = {
    "bf16": ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "arm_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "avx10_2", "fp16_arith", "arm_fp16"),
}


# Of glibc's <malloc.h>: blocks from this size on are mapped and given back one by one; free memory at the top of the
# heap from this size on is given back.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1


def project_root() -> Path:
    """The repository's own root, also inside the throw-away copies of ``dvc queue`` and ``--temp`` runs.

    DVC sets DVC_ROOT for every stage; what must outlive a run (resume state, mlflow.db) lives under it.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def setting_path(text: str) -> Path:
    """The file or folder that a setting names: relative to ``project_root``, ``~`` being the user's home."""
    return project_root() / Path(text).expanduser()


def hub_name_or_path(text: str) -> str:
    """The path of the folder that a setting names, else the text itself, the name on a hub."""
    path = setting_path(text)
    return str(path) if path.is_dir() else text


def pick_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU."""
    import torch

    return torch.get_device_module(device).mem_get_info(device)[0]


class loaded_once(cached_property):  # noqa: N801, named as what it extends
    """A cached property that one thread computes while the others that ask for it wait."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        super().__init__(load)
        self._loading = RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        with self._loading:
            return super().__get__(instance, owner)


def keep_large_blocks() -> None:
    """Let glibc keep the memory of freed tensors of up to 256 MiB for the next ones; elsewhere nothing changes.

    By default each large block is given back to the system after every operation, and the page faults of the next one
    cost about as much as its arithmetic: benchmarks/large_blocks.py. No result changes. The process grows, most where
    sizes vary from step to step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**28)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@functools.cache
def computes_fast(precision: str, device: str) -> bool:
    """Whether a kind of device has instructions for bf16, fp16 or tf32; the first two take long without."""
    import torch

    if precision == "tf32":
        return device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    if device == "cuda":
        return precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in CPU_INSTRUCTIONS[precision])


def usable_precision(precision: str, device: str, key: str) -> str:
    """The precision of a setting, or fp32, with one warning, if that is faster.

    Args:
        precision: fp32 | tf32 | bf16 | fp16. device: kind of torch device. key: of params.yaml, for the warning.
    """
    if precision == "fp32" or computes_fast(precision, device):
        return precision
    _say_fp32(precision, device, key)
    return "fp32"


@functools.cache  # once a run
def _say_fp32(precision: str, device: str, key: str) -> None:
    if not first_of_several():
        return
    if precision == "tf32":
        warn(f"{key} tf32: only NVIDIA GPUs from Ampere on compute in TF32, fp32 is used")
        return
    wanted = "AVX512-BF16 or AMX" if (precision, device) == ("bf16", "cpu") else f"instructions for {precision}"
    machine = "processor" if device == "cpu" else "GPU"
    warn(f"{key} {precision}: this {machine} has no {wanted}, fp32 is faster and used")


@contextmanager
def float32_products(precision: str, device: str) -> Iterator[None]:
    """On a GPU, how products, convolutions and GRUs of float32 are computed in this block; elsewhere nothing changes.

    Args:
        precision: usable there. fp32: as they are, which cuDNN by itself does not; tf32 and bf16: in TF32, with 10 bits
            of the 23. device: kind of torch device.
    """
    import torch

    if device == "cpu":
        yield
        return
    # Both by torch's older names: Inductor asks for them and refuses a process that has set the newer ones.
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and allow torch kernels with a fixed order of summation only.

    On CUDA attention adds in any order if it may (``warn_only``). An operation without a deterministic kernel raises.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
    torch.use_deterministic_algorithms(True)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's generators, the CPU's and the device's own, which dropout draws from: for ``save_state``."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {device.type: torch.get_device_module(device).get_rng_state()}


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on with what ``random_state`` gave; a state of another kind of device restores the CPU's alone."""
    import torch

    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type])


def progress(items: Iterable[Any] | None = None, *, desc: str = "", **kwargs: Any) -> tqdm:
    """A tqdm bar on stderr that is silent when stderr is not a terminal."""
    silent = not sys.stderr.isatty() or not first_of_several()
    return tqdm(items, desc=printable(desc), disable=silent, dynamic_ncols=True, **kwargs)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what will not fit.

    Raises:
        UserError: less than ``needed`` bytes are free where ``folder`` is, or would be.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(f"{folder}: {what} needs {in_units(needed)}, only {in_units(free)} are free")


def in_units(size: float) -> str:
    """Bytes as people read them, decimal: 1,500,000 is 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
