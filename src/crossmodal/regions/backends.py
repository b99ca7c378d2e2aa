"""The region backends by their name in params.yaml: what runs the network that the detector stage has published.

A new one is an extractor in a file of its own, a line here, one in fetch.py for its network and one in
``derived.BACKENDS`` for its settings, and its name in settings/params.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from crossmodal.errors import UserError
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.detectron2_backend import Detectron2Regions
from crossmodal.regions.clip import ClipRegions
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.grid import GridExtractor
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


def _no_network(folder: Path, params: Params) -> NoReturn:
    raise UserError(
        "regions.backend precomputed: the features came from files, no network is here that reads photographs; "
        "sentences can be searched for, photographs need another backend"
    )


LOAD: dict[str, Callable[[Path, Params], RegionExtractor]] = {
    "torchvision": lambda folder, params: TorchvisionRegions(folder, params.regions),
    "grid": lambda folder, params: GridExtractor(folder),
    "clip": lambda folder, params: ClipRegions(folder),
    "bottomup": lambda folder, params: BottomUpRegions(folder, params.bottomup),
    "detectron2": lambda folder, params: Detectron2Regions(folder, params.bottomup),
    "precomputed": _no_network,
}


def load_extractor(params: Params, folder: Path) -> RegionExtractor:
    """Read what the detector stage wrote to ``folder``, by the backend in use.

    Raises:
        UserError: the folder is missing, damaged, or holds the network of another backend; the backend is
            precomputed, which has none.
    """
    return LOAD[region_backend(params)](folder, params)
