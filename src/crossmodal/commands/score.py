"""``crossmodal score``: every metric of a similarity matrix, of embeddings or of a TREC run, of any model.

crossmodal score SIMILARITY.npy
crossmodal score --images A.npy --captions B.npy      # compared by the cosine
crossmodal score --run t2i.run --qrels t2i.qrels      # one direction, as deep as the run goes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from crossmodal.commands.arguments import positive
from crossmodal.errors import UserError

RECALLS = ("r1", "r5", "r10")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "similarity",
        nargs="?",
        type=Path,
        metavar="SIMILARITY.npy",
        help="images x captions, real numbers, higher is more alike; it may be larger than memory",
    )
    parser.add_argument("--images", type=Path, metavar="A.npy", help="embeddings of images x dimensions, instead")
    parser.add_argument("--captions", type=Path, metavar="B.npy", help="with --images: of captions x dimensions")
    parser.add_argument("--run", dest="trec", type=Path, metavar="FILE", help="a TREC run of one direction, instead")
    parser.add_argument("--qrels", type=Path, metavar="FILE", help="with --run: which items are relevant")
    owners = parser.add_mutually_exclusive_group()
    owners.add_argument(
        "--captions-per-image",
        type=positive,
        metavar="K",
        help="caption j belongs to image j // K (default: 5)",
    )
    owners.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help=".npy or text: the image of each caption, one number each; or an image and a caption of every pair",
    )
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE.npy",
        help="captions x images, graded relevance: adds nDCG at 25 and the gains",
    )
    parser.add_argument(
        "--folds",
        type=positive,
        metavar="F",
        help="mean of F folds of consecutive images, each searched for itself; 5: COCO 1K from 5,000 images",
    )
    parser.add_argument(
        "--coco", action="store_true", help="adds ECCV Caption and CxC; of COCO's 5,000 test images in Karpathy's order"
    )
    parser.add_argument(
        "--pmrp",
        type=Path,
        metavar="FOLDER",
        help="with --coco: adds PMRP, from pm_*_to_*.json of eccv-caption's authors",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, nested as metrics/test.json is")


def run(arguments: argparse.Namespace) -> None:
    """Print the metrics as JSON or as a table."""
    from crossmodal.evaluation.coco import coco_metrics
    from crossmodal.evaluation.embeddings import read_cosines
    from crossmodal.evaluation.files import equal_pairs, read_pairs, read_relevance, read_similarity
    from crossmodal.evaluation.metrics import merged
    from crossmodal.evaluation.protocols import fold_metrics
    from crossmodal.evaluation.trec import read_judged, trec_metrics

    if arguments.pmrp and not arguments.coco:
        raise UserError("--pmrp: goes with --coco")
    source = _source(arguments)
    if source == "run":
        metrics = trec_metrics(read_judged(arguments.trec, arguments.qrels))
        print(json.dumps(metrics, indent=2) if arguments.json else _lines(metrics))
        return
    if source == "images":
        similarity = read_cosines(arguments.images, arguments.captions)
    else:
        similarity = read_similarity(arguments.similarity)
    if arguments.pairs:
        pairs = read_pairs(arguments.pairs, *similarity.shape)
    else:
        pairs = equal_pairs(*similarity.shape, arguments.captions_per_image or 5)
    graded = read_relevance(arguments.relevance, *similarity.shape) if arguments.relevance else None
    metrics = fold_metrics(similarity, pairs, arguments.folds or 1, graded)
    if arguments.coco:
        metrics = merged(metrics, coco_metrics(similarity, arguments.pmrp))
    print(json.dumps(metrics, indent=2) if arguments.json else table(metrics))


def _source(arguments: argparse.Namespace) -> str:
    """Which of the sources is given: "similarity", "images" or "run"."""
    given = {"similarity": arguments.similarity, "images": arguments.images, "run": arguments.trec}
    chosen = [name for name, path in given.items() if path]
    if len(chosen) != 1:
        raise UserError("give one of SIMILARITY.npy, --images with --captions, or --run with --qrels")
    for name, other, path in (("images", "captions", arguments.captions), ("run", "qrels", arguments.qrels)):
        if bool(path) != (chosen == [name]):
            raise UserError(f"--{name} and --{other}: one goes with the other")
    extra = {
        "--pairs": arguments.pairs,
        "--captions-per-image": arguments.captions_per_image,
        "--relevance": arguments.relevance,
        "--folds": arguments.folds,
        "--coco": arguments.coco,
    }
    if chosen == ["run"] and (unused := [name for name, value in extra.items() if value]):
        raise UserError(f"{unused[0]}: not with --run, whose qrels and items say all of that")
    return chosen[0]


def _lines(metrics: dict[str, Any]) -> str:
    """One line a metric of a run."""
    names = [name for name in metrics if name not in ("queries", "items")]
    head = f"{metrics['queries']} queries, {metrics['items']} items"
    return "\n".join([head, *(f"{name:16}{metrics[name]:10.{_digits(name)}f}" for name in names)])


def _digits(name: str) -> int:
    """Decimals of a metric: percentages and ranks have two, shares four."""
    return 2 if name in ("medr", "meanr") or name.removeprefix("eccv_").removeprefix("cxc_") in RECALLS else 4


def table(metrics: dict[str, Any]) -> str:
    """One line a metric, with columns i2t and t2i."""
    folds = f", mean of {metrics['folds']} folds" if "folds" in metrics else ""
    lines = [f"{metrics['images']} images, {metrics['captions']} captions{folds}", f"{'':16}{'i2t':>10}{'t2i':>10}"]
    for name, value in metrics["i2t"].items():
        digits = _digits(name)
        lines.append(f"{name:16}{value:10.{digits}f}{metrics['t2i'][name]:10.{digits}f}")
    return "\n".join([*lines, f"{'rsum':16}{metrics['rsum']:10.2f}"])
