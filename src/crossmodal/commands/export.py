"""``crossmodal export``: region features and search results in the files that other projects read.

crossmodal export --format scan features/           # region features, as SCAN's family reads them
crossmodal export --format trec runs/               # what the evaluate stage found, for trec_eval and ir_measures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths
from crossmodal.errors import UserError
from crossmodal.terminal import printable


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        required=True,
        choices=["scan", "trec"],
        help="scan: region features for SCAN, SGRAF, VSE-infinity and others; trec: runs and qrels of both directions",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--dataset", type=Path, default=paths.DATASET, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--regions", type=Path, default=paths.REGIONS, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument(
        "--evaluation", type=Path, default=paths.EVALUATION, metavar="FOLDER", help="trec: results (%(default)s)"
    )
    parser.add_argument(
        "--pad", action="store_true", help="scan: zeros after the regions of images that have fewer than others"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the features of every split, or the results of the searched one."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.datasets.splits import require_split
    from crossmodal.features.store import FeatureStore
    from crossmodal.files.checked_arrays import load_arrays
    from crossmodal.regions.export import export_scan
    from crossmodal.retrieval.gallery import read_info
    from crossmodal.retrieval.results import SearchResults
    from crossmodal.retrieval.trec import export_trec

    if arguments.out.exists():
        raise UserError(f"{arguments.out}: already there; move it away or name another folder")
    dataset, store = read_dataset(arguments.dataset), FeatureStore(arguments.regions)
    if arguments.format == "trec":
        results = load_arrays(SearchResults, arguments.evaluation / "results.npz")
        split = require_split(dataset, "test", store.left_out)
        lines = export_trec(results, dataset, split, arguments.out, read_info(arguments.evaluation).model)
        files = ", ".join(f"{name} {count:,} lines" for name, count in lines.items())
        print(printable(f"export: {files}, {results.i2t_top.shape[1]} results a query, in {arguments.out}"))
        return
    counts = export_scan(dataset, store, arguments.out, pad=arguments.pad)
    splits = ", ".join(f"{name} {count:,} images" for name, count in counts.items())
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(printable(f"export: {splits}, {size / 1e6:,.1f} MB, in {arguments.out}"))
