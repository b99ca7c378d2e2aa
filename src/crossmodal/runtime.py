"""Where a run happens: root folder, device, seeds, threads, progress bars."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from crossmodal.errors import first_of_several


def project_root() -> Path:
    """The repository's own root, also inside the throw-away copies of ``dvc queue`` and ``--temp`` runs.

    DVC sets DVC_ROOT for every stage; what must outlive a run (resume state, mlflow.db) lives under it.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def pick_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and ask torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def progress(items: Iterable[Any] | None = None, **kwargs: Any) -> tqdm:
    """A tqdm bar on stderr that is silent when stderr is not a terminal."""
    return tqdm(items, disable=not sys.stderr.isatty() or not first_of_several(), dynamic_ncols=True, **kwargs)
