"""Regions from a fitted Faster R-CNN: its detections, each with the box head's feature of its box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from crossmodal.regions.base import ImageRegions
from crossmodal.regions.fitted.network import load_detector
from crossmodal.runtime import pick_device
from crossmodal.settings.features import Regions


class TorchvisionRegions:
    """Bottom-up regions (arXiv 1707.07998, section 3.1) of a detector folder.

    A region is a detection: its box after regression, and the box head's output on that same box. ``settings``: the
    maximum number of regions of an image, their minimum score and maximum overlap; the best detection is always kept.

    Raises:
        UserError: the folder holds no detector (see ``load_detector``).
    """

    def __init__(self, folder: Path, settings: Regions) -> None:
        self.device = pick_device()
        self.model = load_detector(folder).to(self.device)
        self.feature_dim = self.model.feature_dim
        self.classes, self.attributes = self.model.classes, self.model.attributes
        heads = self.model.roi_heads
        heads.min_score, heads.nms_thresh = settings.min_score, settings.nms
        heads.most_regions = settings.per_image

    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Regions of images (H, W, 3) uint8, best first; see ``ImageRegions``.

        One by one: in a batch, an image's regions would depend on the others by padding and choice of kernel.
        """
        return [self._regions(image) for image in images]

    @torch.inference_mode()
    def _regions(self, image: np.ndarray) -> ImageRegions:
        pixels = torch.tensor(image).to(self.device)
        found = self.model([pixels.permute(2, 0, 1).float() / 255])[0]
        # numpy has no bfloat16, which regions.precision may give
        found = {name: (t.float() if t.is_floating_point() else t).cpu() for name, t in found.items()}
        logits = found["attributes"]
        attributes = logits.argmax(dim=1) if logits.shape[1] else torch.full((len(logits),), -1)
        return ImageRegions(
            features=found["features"].numpy(),
            boxes=found["boxes"].numpy(),
            classes=(found["labels"] - 1).numpy().astype(np.int16),
            attributes=attributes.numpy().astype(np.int16),
            scores=found["scores"].numpy(),
        )
