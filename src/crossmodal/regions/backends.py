"""The region backends by their name in params.yaml: where the network comes from, and what runs it.

A new one is an extractor in a file of its own and a line here, a line for its settings in ``derived.BACKENDS``, and its
name in settings/params.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_json import write_json
from crossmodal.published.dual_encoder import obtain_half
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.detectron2_backend import Detectron2Regions
from crossmodal.regions.bottomup.obtain import obtain_detector
from crossmodal.regions.clip import ClipRegions
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.fitted.fit import fit_detector
from crossmodal.regions.grid import GridExtractor, obtain_backbone
from crossmodal.runtime import project_root
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


@dataclass(frozen=True)
class Job:
    """What a backend fetches its network by, and the folders (which exist) of the network and of a state to resume."""

    params: Params
    dataset: Dataset
    out: Path
    state: Path


@dataclass(frozen=True)
class Backend:
    """fetch: write the network that the detector stage publishes. load: read it from that folder."""

    fetch: Callable[[Job], None]
    load: Callable[[Path, Params], RegionExtractor]


def _fit(job: Job) -> None:
    fit_detector(job.dataset, job.params.detector, job.out, job.state)


def _fetch_grid(job: Job) -> None:
    obtain_backbone(job.params.grid, job.out)


def _fetch_clip(job: Job) -> None:
    obtain_half(job.params.clip.source, "vision", job.out)


def _fetch_bottomup(job: Job) -> None:
    obtain_detector(job.params.bottomup, job.out, project_root() / ".resume" / "downloads")


def _fetch_nothing(job: Job) -> None:
    write_json(job.out / "config.json", {"backend": "precomputed"}, indent=None)


def _no_network(folder: Path, params: Params) -> NoReturn:
    raise UserError(
        "regions.backend precomputed: the features came from files, no network is here that reads photographs; "
        "sentences can be searched for, photographs need another backend"
    )


BACKENDS = {
    "torchvision": Backend(_fit, lambda folder, params: TorchvisionRegions(folder, params.regions)),
    "grid": Backend(_fetch_grid, lambda folder, params: GridExtractor(folder)),
    "clip": Backend(_fetch_clip, lambda folder, params: ClipRegions(folder)),
    "bottomup": Backend(_fetch_bottomup, lambda folder, params: BottomUpRegions(folder, params.bottomup)),
    "detectron2": Backend(_fetch_bottomup, lambda folder, params: Detectron2Regions(folder, params.bottomup)),
    "precomputed": Backend(_fetch_nothing, _no_network),
}


def load_extractor(params: Params, folder: Path) -> RegionExtractor:
    """Read what the detector stage wrote to ``folder``, by the backend in use.

    Raises:
        UserError: the folder is missing, damaged, or holds the network of another backend; the backend is
            precomputed, which has none.
    """
    return BACKENDS[region_backend(params)].load(folder, params)
