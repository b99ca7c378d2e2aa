"""Where the network of a region backend comes from, by the backend's name: what the detector stage publishes.

Apart from backends.py, which loads it: a search needs neither downloads nor training, and a change of how regions are
extracted does not fit the detector again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.records import Dataset
from crossmodal.files.checked_json import write_json
from crossmodal.published.dual_encoder import obtain_half
from crossmodal.regions.bottomup.obtain import obtain_detector
from crossmodal.regions.fitted.fit import fit_detector
from crossmodal.regions.grid import obtain_backbone
from crossmodal.runtime import project_root
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


@dataclass(frozen=True)
class Job:
    """Settings and data that a network is made from; out: folder for it, state: for a fit to resume; both exist."""

    params: Params
    dataset: Dataset
    out: Path
    state: Path


def _fit(job: Job) -> None:
    fit_detector(job.dataset, job.params.detector, job.out, job.state)


def _grid(job: Job) -> None:
    obtain_backbone(job.params.grid, job.out)


def _clip(job: Job) -> None:
    obtain_half(job.params.clip.source, "vision", job.out)


def _bottomup(job: Job) -> None:
    obtain_detector(job.params.bottomup, job.out, project_root() / ".resume" / "downloads")


def _nothing(job: Job) -> None:
    write_json(job.out / "config.json", {"backend": "precomputed"}, indent=None)


FETCH: dict[str, Callable[[Job], None]] = {
    "torchvision": _fit,
    "grid": _grid,
    "clip": _clip,
    "bottomup": _bottomup,
    "detectron2": _bottomup,
    "precomputed": _nothing,
}


def fetch_network(job: Job) -> None:
    """Fit or obtain the network of the backend in use.

    Raises:
        UserError: see what the backend's file says of it.
    """
    FETCH[region_backend(job.params)](job)
