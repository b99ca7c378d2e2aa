"""``crossmodal export``: the pipeline's region features in the files that other projects read."""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths
from crossmodal.errors import UserError
from crossmodal.terminal import printable


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", required=True, choices=["scan"], help="scan: SCAN, SGRAF, VSE-infinity and others")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--dataset", type=Path, default=paths.DATASET, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--regions", type=Path, default=paths.REGIONS, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument(
        "--pad", action="store_true", help="zeros after the regions of images that have fewer than others"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the files of every split."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.features.store import FeatureStore
    from crossmodal.regions.export import export_scan

    if arguments.out.exists():
        raise UserError(f"{arguments.out}: already there; move it away or name another folder")
    dataset, store = read_dataset(arguments.dataset), FeatureStore(arguments.regions)
    counts = export_scan(dataset, store, arguments.out, pad=arguments.pad)
    splits = ", ".join(f"{name} {count:,} images" for name, count in counts.items())
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(printable(f"export: {splits}, {size / 1e6:,.1f} MB, in {arguments.out}"))
