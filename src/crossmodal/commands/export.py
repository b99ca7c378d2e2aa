"""``crossmodal export``: region features, search results and the trained matcher in the files that others read.

crossmodal export --format scan features/           # region features, as SCAN's family reads them
crossmodal export --format trec runs/               # what the evaluate stage found, for trec_eval and ir_measures
crossmodal export --format hub tern-scenes/         # the matcher with its model card, for hf upload NAME tern-scenes/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths
from crossmodal.errors import UserError
from crossmodal.terminal import printable

_LOAD = """\
In a checkout of the repository, after `make setup`; SOURCE is this folder, or its name on the Hugging Face hub:

    crossmodal embed photos --out results/photos --matcher SOURCE
    crossmodal search "two dogs running on grass" --in results/photos --matcher SOURCE
    crossmodal serve --gallery results/photos --matcher SOURCE"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        required=True,
        choices=["scan", "trec", "hub"],
        help="scan: region features for SCAN, SGRAF, VSE-infinity and others; trec: runs and qrels of both directions; "
        "hub: the trained matcher, what reads its queries, and a model card, for the Hugging Face hub",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--dataset", type=Path, default=paths.DATASET, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--regions", type=Path, default=paths.REGIONS, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument(
        "--evaluation", type=Path, default=paths.EVALUATION, metavar="FOLDER", help="trec, hub: results (%(default)s)"
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
    if arguments.format == "hub":
        _export_matcher(arguments)
        return
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


def _export_matcher(arguments: argparse.Namespace) -> None:
    """The matcher as a folder of ``serving.shared``, with its card."""
    import shutil

    from crossmodal.files.checked_json import write_json
    from crossmodal.runtime import in_units
    from crossmodal.serving.session import Folders
    from crossmodal.serving.shared import write_shared
    from crossmodal.settings.params import load_params
    from crossmodal.sharing.model_card import TO_DO, card_of_folders

    folders = Folders(dataset=arguments.dataset, regions=arguments.regions, evaluation=arguments.evaluation)
    out, params = arguments.out, load_params()
    card, known = card_of_folders(params, folders, _LOAD)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    config = write_shared(part, params, folders, known.dataset.name)
    (part / "README.md").write_text(card, encoding="utf-8")
    for name, content in (("metrics.json", known.metrics), ("settings.json", known.settings)):
        if content is not None:
            write_json(part / name, content)
    part.rename(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(printable(f"export: {config.model} of {known.dataset.name}, {in_units(size)}, in {out}"))
    if known.metrics is None:
        print(printable(f"export: {folders.evaluation} is not of this matcher: its card has no metrics"))
    if known.settings is None:
        print("export: params.yaml is not what trained this matcher: its card has the model's own settings alone")
    if TO_DO in card:
        print(printable(f"export: say in {out / 'README.md'} whose the photographs are, before others read it"))
    print(printable(f"export: share it by hf upload NAME {out}, where NAME is USER/MODEL"))
