"""One region per image: its embedding by the image half of a dual encoder (CLIP, SigLIP)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crossmodal.published.dual_encoder import embedding, embedding_size, load_half
from crossmodal.regions.base import ImageRegions
from crossmodal.runtime import pick_device


class ClipRegions:
    """The embedding is the feature, the box is the whole image. A RegionExtractor.

    Raises:
        UserError: the folder does not hold the image half of a dual encoder.
    """

    one_shape = True

    def __init__(self, folder: Path) -> None:
        model, self.processor = load_half(folder, "vision", "detector")
        self.device = pick_device()
        self.model = model.to(self.device)
        self.feature_dim = embedding_size(model)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Embeddings as the model gives them, not normalised."""
        pictures = [Image.fromarray(image) for image in images]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
        embeddings = embedding(self.model(pixel_values=pixels)).float().cpu().numpy()  # (B, E)
        return [
            ImageRegions.unnamed(values[None], np.array([[0, 0, picture.width, picture.height]], dtype=np.float32))
            for picture, values in zip(pictures, embeddings, strict=True)
        ]
