"""Phrases of the test split and the regions that answer them, written by the evaluate stage (pointing.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.files.checked_arrays import load_arrays

FILE = "pointing.npz"


@dataclass(frozen=True)
class Pointed:
    """Of each phrase the strongest region: by the alignment, or by occlusion for models that have none.

    phrase (P,): number among ``read_phrases`` of the test split. image, caption (P,): store rows. region (P,): the
    strongest one, the first of several. right (P, 2) bool: by evaluation.pointing.FIGURES.
    """

    phrase: np.ndarray
    image: np.ndarray
    caption: np.ndarray
    region: np.ndarray
    right: np.ndarray


def load_pointed(folder: Path) -> Pointed | None:
    """Read ``pointing.npz``; None where nothing was measured.

    Raises:
        UserError: unreadable.
    """
    path = folder / FILE
    return load_arrays(Pointed, path) if path.is_file() else None
