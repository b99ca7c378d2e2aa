"""The network of models/detector as the chosen backend runs it."""

from __future__ import annotations

from pathlib import Path

from crossmodal.errors import UserError
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.detectron2_backend import Detectron2Regions
from crossmodal.regions.clip import ClipRegions
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.grid import GridExtractor
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


def load_extractor(params: Params, folder: Path) -> RegionExtractor:
    """Read what the detector stage wrote to ``folder``.

    Raises:
        UserError: the folder is missing, damaged, or holds the network of another backend; the backend is
            precomputed, which has none.
    """
    match region_backend(params):
        case "torchvision":
            return TorchvisionRegions(folder, params.regions)
        case "grid":
            return GridExtractor(folder)
        case "clip":
            return ClipRegions(folder)
        case "bottomup":
            return BottomUpRegions(folder, params.bottomup)
        case "detectron2":
            return Detectron2Regions(folder, params.bottomup)
    raise UserError(
        f"regions.backend {region_backend(params)}: the features came from files, no network is here that reads "
        "photographs; sentences can be searched for, photographs need another backend"
    )
