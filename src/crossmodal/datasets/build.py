"""The dataset that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from crossmodal.datasets import coco, flickr8k, flickr30k
from crossmodal.datasets.archives.obtain import Archive
from crossmodal.datasets.folder import build_folder
from crossmodal.datasets.scenes.build import build_scenes
from crossmodal.runtime import project_root
from crossmodal.settings.params import Params


def download_cache() -> Path:
    """Where downloads are kept, for all runs in this repository."""
    return project_root() / ".resume" / "downloads"


def archives_of(dataset: str) -> tuple[tuple[Archive, ...], ...]:
    """The files that a dataset is made from: all are needed, each in any one of its forms."""
    match dataset:
        case "flickr8k":
            return ((flickr8k.TEXT,), (flickr8k.PHOTOGRAPHS,))
        case "flickr30k":
            return (flickr30k.PUBLISHED.captions, *flickr30k.PUBLISHED.photographs)
        case "coco":
            return (coco.PUBLISHED.captions, *coco.PUBLISHED.photographs)
    return ()


def build_dataset(folder: Path, params: Params) -> None:
    """Write the dataset ``params.dataset`` into ``folder``, which is created.

    Raises:
        UserError: whatever keeps the dataset from being complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    match params.dataset:
        case "scenes":
            build_scenes(folder, params.scenes)
        case "flickr8k":
            flickr8k.build_flickr8k(folder, params.flickr8k, params.download, download_cache())
        case "flickr30k":
            flickr30k.build_flickr30k(folder, params.flickr30k, params.download, download_cache())
        case "coco":
            coco.build_coco(folder, params.coco, params.download, download_cache())
        case "folder":
            build_folder(folder, params.folder, params.download)


def drop_archives(dataset: str) -> int:
    """Remove the downloads that a dataset was made from (``download.keep_archives: false``); returns their bytes.

    A mirror that is a folder is not touched.
    """
    freed = 0
    for archive in (form for forms in archives_of(dataset) for form in forms):
        for path in download_cache().glob(f"**/{archive.name}"):
            freed += path.stat().st_size
            path.unlink()
    return freed
