"""Bottom-up attention regions with the network that detectron2 builds; all else as in the bottomup backend."""

from __future__ import annotations

from crossmodal.errors import UserError
from crossmodal.regions.bottomup.backend import BottomUpRegions, Network
from crossmodal.regions.bottomup.boxes import BoxRules
from crossmodal.regions.bottomup.folder import DetectorFolder


class Detectron2Regions(BottomUpRegions):
    """The detector of ``BottomUpRegions`` on upstream detectron2, from the same folder. A RegionExtractor.

    Raises:
        UserError: detectron2 is not installed; the folder holds no such detector.
    """

    def build(self, detector: DetectorFolder, rules: BoxRules) -> Network:
        try:
            from crossmodal.regions.bottomup.detectron2_parts import Detectron2Network
        except ModuleNotFoundError as error:
            raise UserError(
                f"regions.backend detectron2: {error.name} is not installed, see requirements-detectron2.txt; "
                "regions.backend bottomup gives the same regions without it"
            ) from None
        return Detectron2Network(detector, rules, self.device)
