"""Registry of the region backends: the extractor that runs the network in the detector stage's folder, by name.

A new one is an extractor in a file of its own, a line here, one in fetch.py for its network and one in
``derived.BACKENDS`` for its settings, and its name in settings/params.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from crossmodal.errors import UserError
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions, Detectron2Regions
from crossmodal.regions.clip import ClipRegions
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.grid import GridExtractor
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


def _no_network(folder: Path, params: Params) -> NoReturn:
    raise UserError(
        "regions.backend precomputed: the features came from files, there is no network that reads photographs; "
        "queries can be sentences, photographs need another backend"
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
    """Load the network in the detector stage's ``folder``, by the backend in use.

    Raises:
        UserError: the folder is missing, damaged, or of another backend; the backend is precomputed.
    """
    return LOAD[region_backend(params)](folder, params)
