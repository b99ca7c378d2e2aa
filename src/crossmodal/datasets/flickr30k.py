"""Flickr30k in Karpathy's splits or those of Flickr30k Entities, with the boxes of phrases where these are given."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crossmodal.datasets.assemble import build_published
from crossmodal.datasets.flickr30k_entities import Entities, entity_entries, read_entities
from crossmodal.datasets.karpathy import read_captions
from crossmodal.datasets.phrases import write_phrases
from crossmodal.datasets.published import PUBLISHED
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError
from crossmodal.runtime import setting_path
from crossmodal.settings.datasets import Download, Flickr30k


def build_flickr30k(folder: Path, settings: Flickr30k, download: Download, cache_folder: Path) -> None:
    """Write Flickr30k as a dataset folder; see ``assemble.build_published``.

    With ``entities`` also the phrases that name boxes; with ``splits: entities`` in the splits and with the captions of
    these annotations.

    Raises:
        UserError: see ``build_published`` and ``read_entities``.
    """
    entities = None if settings.entities is None else setting_path(settings.entities)
    if entities is not None:
        Entities(entities)  # missing files are an error before hours of downloads
    read, listing = partial(read_captions, name="flickr30k"), None
    if settings.splits == "entities":
        if entities is None:
            raise UserError("flickr30k.splits entities: set flickr30k.entities to the folder with train.txt and others")
        read, listing = entity_entries, entities
    read = partial(read, max_images=settings.max_images)
    build_published(folder, PUBLISHED["flickr30k"], read, download, cache_folder, listing)
    if entities is not None:
        write_phrases(folder, read_entities(entities, read_dataset(folder).records))
