"""Extraction as a Ray Data job: parts (see ``parts``) go to actors over a cluster, each with the network loaded.

The machines share a file system on which the repository has the same path, and have the package installed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError, first_line
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.parts import extract_part
from crossmodal.runtime import progress
from crossmodal.settings.params import RayCluster


class PartExtractor:
    """What an actor does: loads dataset and network once, then extracts one part after the other."""

    def __init__(
        self, home: Path, dataset: Path, make_extractor: Callable[[], RegionExtractor], folder: Path, options: dict
    ) -> None:
        os.chdir(home)  # paths in params.yaml are relative to the repository
        self.dataset, self.extractor = read_dataset(dataset), make_extractor()
        self.folder, self.options = folder, options

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """``start`` and ``stop`` of one part, (1,) each -> ``error`` (1,), a UserError's message or nothing."""
        rows = range(int(batch["start"][0]), int(batch["stop"][0]))
        try:
            extract_part(self.dataset, self.extractor, self.folder, rows, wait=True, **self.options)
        except UserError as error:
            return {"error": [str(error)]}
        return {"error": [""]}


def extract_on_ray(
    dataset: Path,
    make_extractor: Callable[[], RegionExtractor],
    folder: Path,
    parts: Sequence[range],
    cluster: RayCluster,
    **options: Any,
) -> None:
    """Extract ``parts`` of the dataset into ``folder``, on the cluster that ``cluster`` names.

    Args:
        dataset: folder.
        make_extractor: loads the network; called in every actor.
        folder: of the parts, on the shared file system.
        options: of ``extract_regions``.

    Raises:
        UserError: Ray is not installed or has no cluster there; see ``extract_regions``.
    """
    ray = _connect(cluster)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    constructor = (Path.cwd(), dataset, make_extractor, folder.resolve(), options)
    try:
        work = ray.data.from_items(
            [{"start": rows.start, "stop": rows.stop} for rows in parts], override_num_blocks=len(parts)
        ).map_batches(
            PartExtractor,
            fn_constructor_args=constructor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(parts))),
            num_gpus=cluster.gpus or None,
        )
        for row in progress(work.iter_rows(), total=len(parts), desc="regions on ray", unit="part"):
            if row["error"]:
                raise UserError(row["error"])
    finally:
        ray.shutdown()


def _connect(cluster: RayCluster) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"regions.executor ray: {error}; pip install 'crossmodal[ray]'") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if cluster.address is None:
            processors = max(os.cpu_count() or 1, cluster.workers + 1)  # an actor takes one, the job itself another
            ray.init(num_cpus=processors, include_dashboard=False, **quiet)
        else:
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"ray.address {cluster.address}: no cluster there ({first_line(error)})") from None
    return ray
