"""Extraction by this process alone, by one of several workers, or by the actors of a Ray cluster.

The machines of a cluster share a file system on which the repository has the same path, and have the package installed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.errors import UserError, first_line
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.extraction.parts import cut_into_parts, extract_part, merge_parts, missing_parts, parse_shard
from crossmodal.runtime import progress
from crossmodal.settings.features import RayCluster

PARTS = "parts"  # in the work folder


def extract_all(
    dataset: Dataset,
    make_extractor: Callable[[], RegionExtractor],
    work: Path,
    how: Extraction,
    *,
    executor: Literal["local", "ray"],
    cluster: RayCluster,
) -> Path:
    """Write the whole store in the work folder and return its path; parts of workers that are there are used.

    Args:
        make_extractor: loads the network; not called if every part is there.
        executor: local: this process, ray: the actors of ``cluster``.

    Raises:
        UserError: Ray is not installed or has no cluster there; see ``extract_regions`` and ``merge_parts``.
    """
    out, folder = work / "out", work / PARTS
    if executor == "local" and not folder.is_dir():
        extract_regions(dataset, make_extractor(), out, how)
        return out
    parts = cut_into_parts(len(dataset.records), how.batch_size)
    missing = missing_parts(folder, parts)
    if missing and executor == "ray":
        _extract_on_ray(dataset.folder, make_extractor, folder, missing, cluster, how)
    elif missing:
        print(f"regions: {len(missing)} of {len(parts)} parts are missing, extracting them here")
        extractor = make_extractor()
        for rows in missing:
            extract_part(dataset, extractor, folder, rows, how, wait=True)
    merge_parts(folder, parts, out, max_broken=how.max_broken)
    return out


def extract_shard(
    dataset: Dataset, make_extractor: Callable[[], RegionExtractor], work: Path, shard: str, how: Extraction
) -> str:
    """Extract the parts of worker i of n (``shard`` "i/n") into the work folder, for ``extract_all``.

    Returns:
        The number of parts done and missing, in one line.

    Raises:
        UserError: ``shard`` is something else; see ``extract_regions``.
    """
    number, count = parse_shard(shard)
    folder = work / PARTS
    parts = cut_into_parts(len(dataset.records), how.batch_size)
    mine = parts[number::count]
    missing = missing_parts(folder, mine)
    extractor = make_extractor() if missing else None
    for rows in missing:
        extract_part(dataset, extractor, folder, rows, how, wait=False)
    others = f", {len(left)} being extracted by others" if (left := missing_parts(folder, mine)) else ""
    missing = len(missing_parts(folder, parts))
    follows = f"{missing} still missing" if missing else "none is missing, dvc repro regions merges them"
    return f"shard {shard}: {len(mine)} of {len(parts)} parts{others}; {follows}"


class PartExtractor:
    """An actor: loads dataset and network once, then extracts one part after the other."""

    def __init__(
        self, home: Path, dataset: Path, make_extractor: Callable[[], RegionExtractor], folder: Path, how: Extraction
    ) -> None:
        os.chdir(home)  # paths in params.yaml are relative to the repository
        self.dataset, self.extractor = read_dataset(dataset), make_extractor()
        self.folder, self.how = folder, how

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """``start`` and ``stop`` of one part, (1,) each -> ``error`` (1,), a UserError's message or nothing."""
        rows = range(int(batch["start"][0]), int(batch["stop"][0]))
        try:
            extract_part(self.dataset, self.extractor, self.folder, rows, self.how, wait=True)
        except UserError as error:
            return {"error": [str(error)]}
        return {"error": [""]}


def _extract_on_ray(
    dataset: Path,
    make_extractor: Callable[[], RegionExtractor],
    folder: Path,
    parts: Sequence[range],
    cluster: RayCluster,
    how: Extraction,
) -> None:
    constructor = (Path.cwd(), dataset, make_extractor, folder.resolve(), how)
    items = [{"start": rows.start, "stop": rows.stop} for rows in parts]
    map_on_ray(PartExtractor, constructor, items, cluster, desc="regions on ray")


def map_on_ray(
    actor: type, constructor: tuple[Any, ...], items: Sequence[dict[str, Any]], cluster: RayCluster, *, desc: str
) -> None:
    """Give each item to one of the cluster's actors, ``actor(*constructor)``, as a batch of one.

    Args:
        actor: its ``__call__`` returns ``error`` (1,), a UserError's message or nothing.

    Raises:
        UserError: of an actor; Ray is not installed or has no cluster there.
    """
    ray = _connect(cluster)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        work = ray.data.from_items(list(items), override_num_blocks=len(items)).map_batches(
            actor,
            fn_constructor_args=constructor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(items))),
            num_gpus=cluster.gpus or None,
        )
        for row in progress(work.iter_rows(), total=len(items), desc=desc, unit="part"):
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
        raise UserError(f"executor ray: {error}; pip install 'crossmodal[ray]'") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if cluster.address is None:
            processors = max(os.cpu_count() or 1, cluster.workers + 1)  # one for each actor and one for the job
            ray.init(num_cpus=processors, include_dashboard=False, **quiet)
        else:
            ray.init(address=cluster.address, **quiet)
    except Exception as error:  # a machine that is too slow to start one among them
        raise UserError(f"ray.address {cluster.address}: no cluster there ({first_line(error)})") from None
    return ray
