"""TERN, the Transformer Encoder Reasoning Network (Messina et al., arXiv 2004.09144).

Regions pass a visual transformer encoder, words BERT; both are mapped to the common space and pass a second encoder,
whose weights the two modalities share. The first output of each, the image's [I-CLS] and the caption's [T-CLS], is the
embedding; an aggregation ``mean`` takes the mean of regions or of words instead, as kaylode/tern does, ``max`` their
maximum. docs/models/tern.md: published settings, differences.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import BoxPositions, TransformerEncoder, pool, put_items, take_items
from crossmodal.settings.models import Tern


class TernMatcher(Matcher):
    """TERN over precomputed region and token features."""

    def __init__(self, settings: Tern, sizes: InputSizes) -> None:
        super().__init__()
        if settings.text_layers and sizes.words % settings.heads:
            raise UserError(
                f"heads {settings.heads} of tern or teran: token features have {sizes.words} values, not a multiple; "
                "choose another number of heads, or text_layers 0"
            )
        options = {"feed_forward": settings.feed_forward, "dropout": settings.dropout, "start": settings.layers_start}
        encoder = partial(TransformerEncoder, heads=settings.heads, **options)
        self.image_aggregation = settings.image_aggregation
        self.text_aggregation = settings.text_aggregation
        self.positions = BoxPositions(sizes.regions, settings.visual_dim, settings.positions, settings.location_scale)
        self.visual_encoder = encoder(settings.visual_dim, layers=settings.visual_layers)
        self.image_map = nn.Linear(settings.visual_dim, settings.embed_dim)
        self.text_encoder = encoder(sizes.words, layers=settings.text_layers)
        self.caption_map = nn.Linear(sizes.words, settings.embed_dim)
        self.encoder = encoder(settings.embed_dim, layers=settings.layers)
        self.image_encoder = self.encoder if settings.shared else encoder(settings.embed_dim, layers=settings.layers)

    def region_set(self, regions: Regions) -> torch.Tensor:
        """Reasoned regions in the common space, [I-CLS] first, 0 at padding: (B, R, D) -> (B, 1 + R, E)."""
        regions = with_class_token(regions)
        items, mask = regions.real_items(), regions.mask
        boxes = None if regions.boxes is None else take_items(regions.boxes, items)
        values = self.positions(take_items(regions.features, items), boxes)  # (M, V)
        values = self.visual_encoder(values, items, mask)
        return put_items(self.image_encoder(self.image_map(values), items, mask), items, *mask.shape)

    def word_set(self, words: Words) -> torch.Tensor:
        """Reasoned words in the common space, [T-CLS] first, 0 at padding: (B, L, H) -> (B, L, E)."""
        items, mask = words.real_items(), words.mask
        values = self.text_encoder(take_items(words.features, items), items, mask)
        return put_items(self.encoder(self.caption_map(values), items, mask), items, *mask.shape)

    def encode_images(self, regions: Regions) -> Encoding:
        values = self.region_set(regions)
        if self.image_aggregation != "cls":  # of the regions alone
            values = values[:, 1:]
        return Encoding(F.normalize(pool(values, regions.mask, self.image_aggregation), dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(pool(self.word_set(words), words.mask, self.text_aggregation), dim=-1))


def with_class_token(regions: Regions) -> Regions:
    """The regions with [I-CLS] first, which starts as zeros: R -> 1 + R."""
    return replace(
        regions,
        features=F.pad(regions.features, (0, 0, 1, 0)),
        boxes=None if regions.boxes is None else F.pad(regions.boxes, (0, 0, 1, 0)),
        mask=F.pad(regions.mask, (1, 0), value=True),
        host_mask=None if regions.host_mask is None else F.pad(regions.host_mask, (1, 0), value=True),
    )
