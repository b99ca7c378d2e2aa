"""Outputs of the published implementations, of the folder REFERENCE_DIR (default: tests/reference/fixtures)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(os.environ.get("REFERENCE_DIR", Path(__file__).parent / "reference" / "fixtures"))


def arrays(name):
    """Tensors of a fixture by name; skips the test where the file is missing."""
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def length_mask(lengths, longest):
    """(N,) lengths to a mask (N, longest)."""
    return torch.arange(longest) < lengths[:, None]
