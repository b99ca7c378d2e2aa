"""Registry of the region backends: the extractor that runs the network in the detector stage's folder, by name.

A new one is an extractor in a file of its own, a line here, one in fetch.py for its network and one in
``derived.BACKENDS`` for its settings, and its name in settings/params.py. Each is imported when it is used: most take
seconds, and a search by sentences needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from crossmodal.errors import UserError
from crossmodal.regions.base import RegionExtractor
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


def _torchvision(folder: Path, params: Params) -> RegionExtractor:
    from crossmodal.regions.fitted.backend import TorchvisionRegions

    return TorchvisionRegions(folder, params.regions)


def _grid(folder: Path, params: Params) -> RegionExtractor:
    from crossmodal.regions.grid import GridExtractor

    return GridExtractor(folder)


def _clip(folder: Path, params: Params) -> RegionExtractor:
    from crossmodal.regions.clip import ClipRegions

    return ClipRegions(folder)


def _bottomup(folder: Path, params: Params) -> RegionExtractor:
    from crossmodal.regions.bottomup.backend import BottomUpRegions

    return BottomUpRegions(folder, params.bottomup)


def _detectron2(folder: Path, params: Params) -> RegionExtractor:
    from crossmodal.regions.bottomup.backend import Detectron2Regions

    return Detectron2Regions(folder, params.bottomup)


def _no_network(folder: Path, params: Params) -> NoReturn:
    raise UserError(
        "regions.backend precomputed: the features came from files, there is no network that reads photographs; "
        "queries can be sentences, photographs need another backend"
    )


LOAD: dict[str, Callable[[Path, Params], RegionExtractor]] = {
    "torchvision": _torchvision,
    "grid": _grid,
    "clip": _clip,
    "bottomup": _bottomup,
    "detectron2": _detectron2,
    "precomputed": _no_network,
}


def load_extractor(params: Params, folder: Path) -> RegionExtractor:
    """Load the network in the detector stage's ``folder``, by the backend in use.

    Raises:
        UserError: the folder is missing, damaged, or of another backend; the backend is precomputed.
    """
    return LOAD[region_backend(params)](folder, params)
