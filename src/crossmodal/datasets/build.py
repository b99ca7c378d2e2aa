"""Datasets by the name that ``dataset:`` in params.yaml takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive
from crossmodal.datasets.assemble import Entry, build_published
from crossmodal.datasets.flickr8k import read_flickr8k
from crossmodal.datasets.flickr30k import build_flickr30k
from crossmodal.datasets.folder import build_folder
from crossmodal.datasets.karpathy import read_captions
from crossmodal.datasets.published import PUBLISHED
from crossmodal.datasets.records import Skipped
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


def _published(folder: Path, params: Params, read: Callable[..., tuple[list[Entry], list[Skipped]]]) -> None:
    """A dataset whose section of params.yaml holds the options of ``read``, which reads its captions."""
    read = partial(read, **getattr(params, params.dataset).model_dump())
    build_published(folder, PUBLISHED[params.dataset], read, params.download, download_cache())


BUILD: dict[str, Callable[[Path, Params], None]] = {
    "scenes": lambda folder, params: build_scenes(folder, params.scenes),
    "flickr8k": partial(_published, read=read_flickr8k),
    "flickr30k": lambda folder, params: build_flickr30k(folder, params.flickr30k, params.download, download_cache()),
    "coco": partial(_published, read=partial(read_captions, name="coco")),
    "folder": lambda folder, params: build_folder(folder, params.folder, params.download),
}


def build_dataset(folder: Path, params: Params) -> None:
    """Write the dataset ``params.dataset`` into ``folder``, which is created.

    Raises:
        UserError: whatever keeps the dataset from being complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    BUILD[params.dataset](folder, params)


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
