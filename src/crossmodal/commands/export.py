"""``crossmodal export``: region features, search results, vectors and the matcher in the files that others read.

crossmodal export --format scan features/                # region features, as SCAN's family reads them
crossmodal export --format trec runs/                    # what the evaluate stage found, for trec_eval and ir_measures
crossmodal export --format clip_benchmark scenes.json    # recalls of that search, as CLIP_benchmark writes them
crossmodal export --format lance vectors/                # encoded images and captions, for LanceDB; parquet: for others
crossmodal export --format hub tern-scenes/              # the matcher with its model card: hf upload NAME tern-scenes/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths
from crossmodal.errors import UserError
from crossmodal.terminal import printable

FORMATS = {
    "scan": "region features for SCAN, SGRAF, VSE-infinity and others",
    "trec": "runs and qrels of both directions",
    "clip_benchmark": "recalls as CLIP_benchmark's JSON",
    "parquet": "vectors or sets, ids and boxes of images and captions, a file each",
    "lance": "the same as a LanceDB database",
    "hub": "the matcher, what reads its queries, and a model card, for the Hugging Face hub",
}

LOAD = """\
In a checkout of the repository, after `make setup`; SOURCE is this folder, or its name on the Hugging Face hub:

    crossmodal embed photos --out results/photos --matcher SOURCE
    crossmodal search "two dogs running on grass" --in results/photos --matcher SOURCE
    crossmodal serve --gallery results/photos --matcher SOURCE"""


def add(parser: argparse.ArgumentParser) -> None:
    described = "; ".join(f"{name}: {purpose}" for name, purpose in FORMATS.items())
    parser.add_argument("--format", required=True, choices=list(FORMATS), help=described)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; clip_benchmark: file to write")
    parser.add_argument("--dataset", type=Path, default=paths.DATASET, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--regions", type=Path, default=paths.REGIONS, metavar="FOLDER", help="(%(default)s)")
    parser.add_argument(
        "--evaluation",
        type=Path,
        default=paths.EVALUATION,
        metavar="FOLDER",
        help="trec, clip_benchmark, hub: results (%(default)s)",
    )
    for name, folder in (("matcher", paths.MATCHER), ("captions", paths.CAPTIONS)):
        parser.add_argument(
            f"--{name}", type=Path, default=folder, metavar="FOLDER", help="parquet, lance, hub: (%(default)s)"
        )
    parser.add_argument(
        "--split", choices=["train", "val", "test"], help="parquet, lance: which images (default: test)"
    )
    parser.add_argument(
        "--pad", action="store_true", help="scan: zeros after the regions of images that have fewer than others"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write one of the formats."""
    if arguments.out.exists():
        raise UserError(f"{arguments.out}: already there; move it away or name another")
    if arguments.pad and arguments.format != "scan":
        raise UserError(f"--pad: not with --format {arguments.format}")
    if arguments.split and arguments.format not in ("parquet", "lance"):
        raise UserError(f"--split: not with --format {arguments.format}")
    writers = {
        "scan": _scan,
        "trec": _trec,
        "clip_benchmark": _clip_benchmark,
        "parquet": _vectors,
        "lance": _vectors,
        "hub": _matcher,
    }
    print(printable(f"export: {writers[arguments.format](arguments)}, in {arguments.out}"))


def _scan(arguments: argparse.Namespace) -> str:
    """The features of every split."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.features.store import FeatureStore
    from crossmodal.regions.export import export_scan

    dataset, store = read_dataset(arguments.dataset), FeatureStore(arguments.regions)
    counts = export_scan(dataset, store, arguments.out, pad=arguments.pad)
    splits = ", ".join(f"{name} {count:,} images" for name, count in counts.items())
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    return f"{splits}, {size / 1e6:,.1f} MB"


def _trec(arguments: argparse.Namespace) -> str:
    """The results of the searched split."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.datasets.splits import require_split
    from crossmodal.features.store import FeatureStore
    from crossmodal.files.checked_arrays import load_arrays
    from crossmodal.retrieval.gallery import check_made_of, read_info
    from crossmodal.retrieval.results import SearchResults
    from crossmodal.retrieval.trec import export_trec

    dataset, store = read_dataset(arguments.dataset), FeatureStore(arguments.regions)
    info = read_info(arguments.evaluation)
    check_made_of(arguments.evaluation, info, dataset)
    results = load_arrays(SearchResults, arguments.evaluation / "results.npz")
    split = require_split(dataset, "test", store.left_out)
    lines = export_trec(results, dataset, split, arguments.out, info.model)
    files = ", ".join(f"{name} {count:,} lines" for name, count in lines.items())
    return f"{files}, {results.i2t_top.shape[1]} results a query"


def _clip_benchmark(arguments: argparse.Namespace) -> str:
    """The recalls of the searched split."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.evaluation.clip_benchmark import clip_benchmark_record
    from crossmodal.files.checked_json import read_json, write_json
    from crossmodal.retrieval.gallery import check_made_of, read_info

    path, info = arguments.evaluation / "metrics.json", read_info(arguments.evaluation)
    dataset = read_dataset(arguments.dataset)
    check_made_of(arguments.evaluation, info, dataset)
    metrics = read_json(path, dict, nan=True, advice="run the evaluate stage first")
    record = clip_benchmark_record(metrics, path, dataset=dataset.name, model=info.model, pretrained=info.key)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, record, indent=None)
    return f"{len(record['metrics'])} recalls of {record['model']} on {record['dataset']}"


def _vectors(arguments: argparse.Namespace) -> str:
    """A split as the matcher encodes it."""
    from crossmodal.datasets.records import read_dataset
    from crossmodal.datasets.splits import require_split
    from crossmodal.features.store import FeatureStore
    from crossmodal.inference.compatibility import check_inputs
    from crossmodal.inference.scoring import SearchInputs
    from crossmodal.models.checkpoint import load_matcher
    from crossmodal.runtime import pick_device
    from crossmodal.serving.vector_export import export_vectors
    from crossmodal.settings.params import load_params

    dataset = read_dataset(arguments.dataset)
    regions, words = FeatureStore(arguments.regions), FeatureStore(arguments.captions)
    model, config = load_matcher(arguments.matcher)
    check_inputs(arguments.matcher, config, regions, words)
    name = arguments.split or "test"
    split = require_split(dataset, name, regions.left_out)
    batch_size = load_params().evaluate.batch_size
    inputs = SearchInputs(model.to(pick_device()), regions, words, split, batch_size, config)
    counts = export_vectors(inputs, dataset, name, arguments.out, arguments.format)
    rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
    return f"{rows} of {name}, {'vectors' if model.pooled else 'sets of vectors'} of {config.model}"


def _matcher(arguments: argparse.Namespace) -> str:
    """The matcher as a folder of ``serving.shared``, with its card."""
    from crossmodal.files.checked_json import write_json
    from crossmodal.files.whole_folder import whole_folder
    from crossmodal.runtime import in_units
    from crossmodal.serving.session import Folders
    from crossmodal.serving.shared import write_shared
    from crossmodal.settings.params import load_params
    from crossmodal.sharing.model_card import TO_DO, card_of_folders

    given = {name: getattr(arguments, name) for name in ("dataset", "regions", "captions", "matcher", "evaluation")}
    folders = Folders(**given)
    out, params = arguments.out, load_params()
    card, known = card_of_folders(params, folders, LOAD)
    with whole_folder(out) as part:
        config = write_shared(part, params, folders, "" if known.settings is None else known.dataset.name)
        (part / "README.md").write_text(card, encoding="utf-8")
        for name, content in (("metrics.json", known.metrics), ("settings.json", known.settings)):
            if content is not None:
                write_json(part / name, content)
    notes = []
    if known.metrics is None:
        notes.append(f"{folders.evaluation} is not of this matcher and {folders.dataset}: its card has no metrics")
    if known.settings is None:
        notes.append("params.yaml is not what trained this matcher: its card has the model's own settings alone")
    if TO_DO in card:
        notes.append(f"say in {out / 'README.md'} whose the photographs are, before others read it")
    notes.append(f"share it by hf upload NAME {out}, where NAME is USER/MODEL")
    for note in notes:
        print(printable(f"export: {note}"))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{config.model}{'' if known.settings is None else f' of {known.dataset.name}'}, {in_units(size)}"
