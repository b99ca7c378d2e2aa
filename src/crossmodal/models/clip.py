"""CLIP (Radford et al., arXiv 2103.00020) or SigLIP (arXiv 2303.15343) as a yardstick: frozen, nothing is trained.

The regions and captions stages have run the two halves of the model (see dual_encoder): an image is one region,
its embedding, and a caption one token, its embedding. What is left is the cosine.
"""

from __future__ import annotations

import torch.nn.functional as F

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.settings.models import Clip


class ClipMatcher(Matcher):
    """L2-normalises the stored embeddings; has no parameters.

    Raises:
        UserError: embeddings of images and captions differ in size, so that they are not of one model.
    """

    def __init__(self, settings: Clip, sizes: InputSizes) -> None:
        super().__init__()
        if sizes.regions != sizes.words:
            raise UserError(
                f"clip.source {settings.source!r}: image embeddings are of size {sizes.regions}, caption embeddings "
                f"of size {sizes.words}: not of one model"
            )

    def members(self) -> list[Matcher]:
        """None: there is nothing to train."""
        return []

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(regions.features[:, 0], dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(words.features[:, 0], dim=-1))
