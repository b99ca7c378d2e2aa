"""VSE++ over region features (Faghri et al., arXiv 1707.05612): linear maps and pooling, nothing else.

The baseline of every reasoning model: it sees which regions and words there are, not their relations.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import pool
from crossmodal.settings.models import Vsepp


class VseppMatcher(Matcher):
    """Linear(regions) and Linear(words), pooled and L2-normalised."""

    def __init__(self, settings: Vsepp, sizes: InputSizes) -> None:
        super().__init__()
        self.image_pool = settings.image_pool
        self.text_pool = settings.text_pool
        self.image_map = nn.Linear(sizes.regions, settings.embed_dim)
        self.caption_map = nn.Linear(sizes.words, settings.embed_dim)

    def encode_images(self, regions: Regions) -> Encoding:
        mapped = self.image_map(regions.features)  # (B, R, E)
        return Encoding(F.normalize(pool(mapped, regions.mask, self.image_pool), dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        mapped = self.caption_map(words.features)  # (B, L, E)
        return Encoding(F.normalize(pool(mapped, words.mask, self.text_pool), dim=-1))
