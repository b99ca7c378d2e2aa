"""Bottom-up attention regions of images: the original's preprocessing, one of two networks and of two selections.

extractor = BottomUpRegions(Path("models/detector"), params.bottomup)
regions = extractor([image])[0]  # image: (H, W, 3) uint8 RGB
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.regions.base import ImageRegions
from crossmodal.regions.bottomup.boxes import CAFFE, DETECTRON2, BoxRules
from crossmodal.regions.bottomup.folder import DetectorFolder, read_folder
from crossmodal.regions.bottomup.network import BottomUpNetwork, Detections
from crossmodal.regions.bottomup.selection import select_airsplay, select_caffe
from crossmodal.runtime import pick_device
from crossmodal.settings.features import Bottomup

SHORT_SIDE, LONG_SIDE = 600, 1000  # pixels after resizing; the long side may be less
MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green, red
_LEAST_SIDE = 3  # pixels; fewer would be empty after the first pooling

Network = Callable[[Tensor, float], list[Detections]]


class BottomUpRegions:
    """The detector of arXiv 1707.07998, section 3.1, as published. A RegionExtractor.

    ``bottomup.selection`` caffe uses Caffe's rules for boxes, with which the detector was trained; airsplay uses
    detectron2's, as that project does with the same weights.

    Raises:
        UserError: the folder holds no such detector (see ``read_folder``).
    """

    def __init__(self, folder: Path, settings: Bottomup) -> None:
        self.settings = settings
        self.device = pick_device()
        detector = read_folder(folder)
        self.feature_dim = detector.architecture.feature_dim
        self.classes, self.attributes = detector.classes, detector.attributes
        self.rules = CAFFE if settings.selection == "caffe" else DETECTRON2
        self.network = self.build(detector, self.rules)

    def build(self, detector: DetectorFolder, rules: BoxRules) -> Network:
        """The network with its weights, in evaluation mode on the device."""
        with torch.device("meta"):
            network = BottomUpNetwork(detector.architecture, rules)
        network.load_state_dict(detector.weights, assign=True)
        return network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Regions of images (H, W, 3) uint8 RGB, best first; see ``ImageRegions``.

        Images of one size go through the backbone together; padding others to it would change their features.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, image in enumerate(images):
            groups[image.shape].append(row)
        regions: dict[int, ImageRegions] = {}
        for (height, width, _), rows in groups.items():
            scale = resize_scale(height, width)
            pixels = torch.cat([preprocess(torch.tensor(images[row]).to(self.device), scale) for row in rows])
            found = self.network(pixels, scale)
            for row, of_image in zip(rows, found, strict=True):
                regions[row] = self._select(of_image, scale, tuple(pixels.shape[-2:]), (height, width))
        return [regions[row] for row in range(len(images))]

    def _select(
        self, found: Detections, scale: float, size: tuple[int, int], original: tuple[int, int]
    ) -> ImageRegions:
        if self.settings.selection == "caffe":
            rows, boxes, scores = select_caffe(found, scale, self.settings)
        else:
            rows, boxes, scores = select_airsplay(found, size, original, self.settings)
        classes = found.class_logits[rows, :-1].argmax(dim=1)
        attributes = torch.full_like(classes, -1)
        if found.attribute_logits is not None:
            attributes = found.attribute_logits[rows, :-1].argmax(dim=1)
        return ImageRegions(
            features=found.features[rows].cpu().numpy(),
            boxes=boxes.cpu().numpy(),
            classes=classes.cpu().numpy().astype(np.int16),
            attributes=attributes.cpu().numpy().astype(np.int16),
            scores=scores.cpu().numpy(),
        )


class Detectron2Regions(BottomUpRegions):
    """The same detector on upstream detectron2, from the same folder.

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


def resize_scale(height: int, width: int) -> float:
    """Factor that resizes an image's short side to 600 pixels, or its long one to 1000 where it would be longer."""
    short, long = min(height, width), max(height, width)
    scale = SHORT_SIDE / short
    return LONG_SIDE / long if round(scale * long) > LONG_SIDE else scale


def preprocess(image: Tensor, scale: float) -> Tensor:
    """The network's input of an image (H, W, 3) uint8 RGB: (1, 3, H', W') float32.

    In the original's order: the mean is subtracted first, then the image is resized in floating point, bilinearly
    and without smoothing, by ``scale`` itself and not by the ratio of the rounded sizes (cv2.resize with fx, fy).
    """
    pixels = image.flip(-1).float() - torch.tensor(MEAN, device=image.device)
    size = [max(round(side * scale), _LEAST_SIDE) for side in image.shape[:2]]
    pixels = pixels.permute(2, 0, 1)[None].contiguous()
    return torch.ops.aten.upsample_bilinear2d(pixels, size, False, scale, scale)
