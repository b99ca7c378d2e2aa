"""Who extracts what: this process everything, one of several workers its share, or the actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from crossmodal.datasets.records import Dataset
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.extract import extract_regions
from crossmodal.regions.extraction.parts import cut_into_parts, extract_part, merge_parts, missing_parts, parse_shard
from crossmodal.regions.extraction.ray_job import extract_on_ray
from crossmodal.settings.params import RayCluster

PARTS = "parts"  # in the work folder


def extract_all(
    dataset: Dataset,
    make_extractor: Callable[[], RegionExtractor],
    work: Path,
    *,
    executor: Literal["local", "ray"],
    cluster: RayCluster,
    **options: Any,
) -> Path:
    """The whole store in the work folder, whose path is returned.

    Parts that workers have left in the work folder are used, and those still missing extracted.

    Args:
        make_extractor: loads the network; not called where every part is there.
        executor: local: this process, ray: the actors of ``cluster``.
        options: of ``extract_regions``.

    Raises:
        UserError: see ``extract_regions``, ``merge_parts`` and ``extract_on_ray``.
    """
    out, folder = work / "out", work / PARTS
    if executor == "local" and not folder.is_dir():
        extract_regions(dataset, make_extractor(), out, **options)
        return out
    parts = cut_into_parts(len(dataset.records), options["batch_size"])
    missing = missing_parts(folder, parts)
    if missing and executor == "ray":
        extract_on_ray(dataset.folder, make_extractor, folder, missing, cluster, **options)
    elif missing:
        print(f"regions: {len(missing)} of {len(parts)} parts are missing, extracting them here")
        extractor = make_extractor()
        for rows in missing:
            extract_part(dataset, extractor, folder, rows, wait=True, **options)
    merge_parts(folder, parts, out, max_broken=options["max_broken"])
    return out


def extract_shard(
    dataset: Dataset, make_extractor: Callable[[], RegionExtractor], work: Path, shard: str, **options: Any
) -> str:
    """The share of worker i of n (``shard`` "i/n"), left in the work folder for ``extract_all``.

    Returns:
        What was done and what is missing, in one line.

    Raises:
        UserError: ``shard`` is something else; see ``extract_regions``.
    """
    number, count = parse_shard(shard)
    folder = work / PARTS
    parts = cut_into_parts(len(dataset.records), options["batch_size"])
    mine = parts[number::count]
    missing = missing_parts(folder, mine)
    extractor = make_extractor() if missing else None
    for rows in missing:
        extract_part(dataset, extractor, folder, rows, wait=False, **options)
    others = f", {len(left)} in another process's hands" if (left := missing_parts(folder, mine)) else ""
    missing = len(missing_parts(folder, parts))
    follows = f"{missing} still missing" if missing else "none is missing any more, dvc repro regions merges them"
    return f"shard {shard}: {len(mine)} of {len(parts)} parts{others}; {follows}"
