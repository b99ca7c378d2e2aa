"""The dataset that params.yaml names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive
from crossmodal.datasets.assemble import build_published
from crossmodal.datasets.flickr8k import read_flickr8k
from crossmodal.datasets.flickr30k import build_flickr30k
from crossmodal.datasets.folder import build_folder
from crossmodal.datasets.karpathy import read_captions
from crossmodal.datasets.published import PUBLISHED
from crossmodal.datasets.scenes.build import build_scenes
from crossmodal.runtime import project_root
from crossmodal.settings.params import Params


def download_cache() -> Path:
    """Folder of the downloads of all runs in this repository."""
    return project_root() / ".resume" / "downloads"


def archives_of(dataset: str) -> tuple[tuple[Archive, ...], ...]:
    """The files that a dataset is made from: all are needed, each in any one of its forms."""
    published = PUBLISHED.get(dataset)
    return (published.captions, *published.photographs) if published else ()


def build_dataset(folder: Path, params: Params) -> None:
    """Write the dataset ``params.dataset`` into ``folder``, which is created.

    Raises:
        UserError: whatever keeps the dataset from being complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if params.dataset == "scenes":
        build_scenes(folder, params.scenes)
    elif params.dataset == "folder":
        build_folder(folder, params.folder, params.download)
    elif params.dataset == "flickr30k":
        build_flickr30k(folder, params.flickr30k, params.download, download_cache())
    else:
        published = PUBLISHED[params.dataset]
        reader = read_flickr8k if params.dataset == "flickr8k" else partial(read_captions, name=params.dataset)
        read = partial(reader, **getattr(params, params.dataset).model_dump())
        build_published(folder, published, read, params.download, download_cache())


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
