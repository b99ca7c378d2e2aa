"""``crossmodal score``: every metric of a similarity matrix, of any model."""

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
        type=Path,
        metavar="SIMILARITY.npy",
        help="images x captions, real numbers, higher is more alike; it may be larger than memory",
    )
    owners = parser.add_mutually_exclusive_group()
    owners.add_argument(
        "--captions-per-image",
        type=positive,
        default=5,
        metavar="K",
        help="caption j belongs to image j // K (default: %(default)s)",
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
        default=1,
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
    from crossmodal.evaluation.files import equal_pairs, read_pairs, read_relevance, read_similarity
    from crossmodal.evaluation.metrics import merged
    from crossmodal.evaluation.protocols import fold_metrics

    if arguments.pmrp and not arguments.coco:
        raise UserError("--pmrp: goes with --coco")
    similarity = read_similarity(arguments.similarity)
    if arguments.pairs:
        pairs = read_pairs(arguments.pairs, *similarity.shape)
    else:
        pairs = equal_pairs(*similarity.shape, arguments.captions_per_image)
    graded = read_relevance(arguments.relevance, *similarity.shape) if arguments.relevance else None
    metrics = fold_metrics(similarity, pairs, arguments.folds, graded)
    if arguments.coco:
        metrics = merged(metrics, coco_metrics(similarity, arguments.pmrp))
    print(json.dumps(metrics, indent=2) if arguments.json else table(metrics))


def table(metrics: dict[str, Any]) -> str:
    """One line a metric, with columns i2t and t2i."""
    folds = f", mean of {metrics['folds']} folds" if "folds" in metrics else ""
    lines = [f"{metrics['images']} images, {metrics['captions']} captions{folds}", f"{'':16}{'i2t':>10}{'t2i':>10}"]
    for name, value in metrics["i2t"].items():
        percent_or_rank = name in ("medr", "meanr") or name.removeprefix("eccv_").removeprefix("cxc_") in RECALLS
        digits = 2 if percent_or_rank else 4
        lines.append(f"{name:16}{value:10.{digits}f}{metrics['t2i'][name]:10.{digits}f}")
    return "\n".join([*lines, f"{'rsum':16}{metrics['rsum']:10.2f}"])
