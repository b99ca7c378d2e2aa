"""Flickr30k in Karpathy's splits: 29,000 / 1,014 / 1,000 photographs with five captions each.

Young, Lai, Hodosh and Hockenmaier, "From image descriptions to visual denotations", TACL 2, 2014.

The photographs are under Flickr's terms, for research and education without profit, and their owners give them out
on request: this module has no address of them. The captions' checksum is that of the Git LFS pointer in the
repository of the first address; the second is good if it serves the same file.
"""

from __future__ import annotations

from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive, obtain_one_of
from crossmodal.datasets.flickr30k_entities import Entities, entity_entries, read_entities
from crossmodal.datasets.karpathy import (
    CAPTION_DATASETS,
    Published,
    Selection,
    build_karpathy,
    write_photographs,
)
from crossmodal.datasets.phrases import write_phrases
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError
from crossmodal.runtime import setting_path
from crossmodal.settings.params import Download, Flickr30k

FORM = "https://shannon.cs.illinois.edu/DenotationGraph/"
TERMS = (
    f"The photographs of Flickr30k are given out on request: fill in the form at {FORM} and download "
    "flickr30k-images.tar.gz (4.4 GB, 31,783 photographs; a zip archive of the folder does as well)."
)
PUBLISHED = Published(
    "flickr30k",
    captions=(
        Archive(
            "dataset_flickr30k.json",
            (
                "https://github.com/Delphboy/karpathy-splits/raw/main/dataset_flickr32k.json",  # so spelt
                "https://huggingface.co/datasets/openflamingo/eval_benchmark/resolve/main/flickr30k/dataset_flickr30k.json",
            ),
            ("sha256:64c85af0e9d187091cb88890e56b3f640ac48386196a930d3ff8433d73165135",),
            size=111_042_326,
        ),
        CAPTION_DATASETS,
    ),
    photographs=(
        (
            Archive("flickr30k-images.tar.gz", (), size=4_400_000_000, terms=TERMS),
            Archive("flickr30k-images.zip", ()),
        ),
    ),
)


def build_flickr30k(folder: Path, settings: Flickr30k, download: Download, cache_folder: Path) -> None:
    """Write Flickr30k as a dataset folder; see ``karpathy.build_karpathy``.

    With ``entities`` also the phrases that name boxes; with ``splits: entities`` in the splits and with the captions of
    these annotations.

    Raises:
        UserError: see ``build_karpathy`` and ``read_entities``.
    """
    entities = None if settings.entities is None else setting_path(settings.entities)
    if entities is not None:
        Entities(entities)  # what is not there is said before hours of downloads
    if settings.splits == "karpathy":
        selection = Selection(restval=False, captions=0, max_images=settings.max_images)
        build_karpathy(folder, PUBLISHED, selection, download, cache_folder)
    elif entities is None:
        raise UserError("flickr30k.splits entities: set flickr30k.entities to the folder with train.txt and the others")
    else:
        entries, skipped = entity_entries(entities, settings.max_images)
        photographs = [
            obtain_one_of(forms, cache_folder, download.mirror, offline=download.offline)
            for forms in PUBLISHED.photographs
        ]
        write_photographs(folder, PUBLISHED.name, entries, skipped, photographs, entities, {}, download.max_bad)
    if entities is not None:
        write_phrases(folder, read_entities(entities, read_dataset(folder).records))
