"""The dataset that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from crossmodal.datasets.flickr8k import build_flickr8k
from crossmodal.datasets.scenes.build import build_scenes
from crossmodal.params import Params
from crossmodal.runtime import project_root


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
            cache_folder = project_root() / ".resume" / "downloads"
            build_flickr8k(folder, params.flickr8k, params.download, cache_folder)
