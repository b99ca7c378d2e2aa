"""The network of each region backend, as the detector stage publishes it.

Apart from backends.py, which loads it: a search needs neither downloads nor training, and a change in the extraction of
regions does not fit the detector again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crossmodal.datasets.records import Dataset
from crossmodal.files.checked_json import write_json
from crossmodal.published.dual_encoder import fetch_half
from crossmodal.regions.bottomup.fetch import fetch_detector
from crossmodal.regions.fitted.fit import fit_detector
from crossmodal.regions.grid import fetch_backbone
from crossmodal.runtime import project_root
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import Params


def _bottomup(params: Params, dataset: Dataset, out: Path, state: Path) -> None:
    fetch_detector(params.bottomup, out, project_root() / ".resume" / "downloads")


FETCH: dict[str, Callable[[Params, Dataset, Path, Path], None]] = {
    "torchvision": lambda params, dataset, out, state: fit_detector(dataset, params.detector, out, state),
    "grid": lambda params, dataset, out, state: fetch_backbone(params.grid, out),
    "clip": lambda params, dataset, out, state: fetch_half(params.clip.source, "vision", out),
    "bottomup": _bottomup,
    "detectron2": _bottomup,
    "precomputed": lambda params, dataset, out, state: write_json(
        out / "config.json", {"backend": "precomputed"}, indent=None
    ),
}


def fetch_network(params: Params, dataset: Dataset, out: Path, state: Path) -> None:
    """Fit or obtain the network of the backend in use.

    Args:
        out: folder of the network, which exists. state: folder for a fit to resume from.

    Raises:
        UserError: see the function of the backend.
    """
    FETCH[region_backend(params)](params, dataset, out, state)
