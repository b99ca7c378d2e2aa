"""COCO captions in Karpathy's splits: 113,287 / 5,000 / 5,000 photographs of COCO 2014.

Chen et al., "Microsoft COCO Captions", 2015 (arXiv 1504.00325); annotations CC BY 4.0, photographs under Flickr's
terms. The checksums of the photographs are those that TensorFlow Datasets checks the same addresses against, that
of the captions is the Git LFS pointer's in the repository of the address.
"""

from __future__ import annotations

from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive
from crossmodal.datasets.karpathy import CAPTION_DATASETS, Published, Selection, build_karpathy
from crossmodal.settings.params import Coco, Download

IMAGES = "http://images.cocodataset.org/zips"
PUBLISHED = Published(
    "coco",
    captions=(
        Archive(
            "dataset_coco.json",
            ("https://github.com/Delphboy/karpathy-splits/raw/main/dataset_coco.json",),
            ("sha256:af76e819987c9ced8452fdb4da823524e033f7baa097cf40bab83bdab4c469ea",),
            size=408_860_810,
        ),
        CAPTION_DATASETS,
    ),
    photographs=(
        (
            Archive(
                "train2014.zip",
                (f"{IMAGES}/train2014.zip",),
                ("sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",),
                size=13_510_573_713,
            ),
        ),
        (
            Archive(
                "val2014.zip",
                (f"{IMAGES}/val2014.zip",),
                ("sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",),
                size=6_645_013_297,
            ),
        ),
    ),
)


def build_coco(folder: Path, settings: Coco, download: Download, cache_folder: Path) -> None:
    """Write COCO as a dataset folder, train with or without "restval"; see ``karpathy.build_karpathy``."""
    selection = Selection(settings.restval, settings.captions, settings.max_images)
    build_karpathy(folder, PUBLISHED, selection, download, cache_folder)
