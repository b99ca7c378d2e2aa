"""The network of models/detector as the chosen backend runs it."""

from __future__ import annotations

from pathlib import Path

from crossmodal.params import Params
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.clip_backend import ClipRegions
from crossmodal.regions.detectron2_backend import Detectron2Regions
from crossmodal.regions.grid import GridExtractor
from crossmodal.regions.torchvision_backend import TorchvisionRegions


def load_extractor(params: Params, folder: Path) -> RegionExtractor:
    """Read what the detector stage wrote to ``folder``.

    Raises:
        UserError: the folder is missing, damaged, or holds the network of another backend.
    """
    if params.region_backend == "grid":
        return GridExtractor(folder)
    if params.region_backend == "clip":
        return ClipRegions(folder)
    if params.region_backend == "bottomup":
        return BottomUpRegions(folder, params.bottomup)
    if params.region_backend == "detectron2":
        return Detectron2Regions(folder, params.bottomup)
    return TorchvisionRegions(folder, params.regions)
