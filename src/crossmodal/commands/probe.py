"""``crossmodal probe``: text, image and group score of a trained matcher on a compositional test.

crossmodal probe winoground/examples.jsonl --images winoground/images
crossmodal probe sugarcrepe/add_att.json --images val2017
crossmodal probe mine.csv                      # image, caption_0, caption_1, right
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from crossmodal.terminal import printable


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="examples of Winoground, SugarCrepe, ARO, VALSE or your own, JSON or CSV",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where the images are (default: FILE's folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    """Score every example and print the scores with those of chance."""
    from crossmodal.datasets.contrasts import read_contrasts
    from crossmodal.evaluation.contrasts import contrast_scores
    from crossmodal.serving.contrasts import score_contrasts
    from crossmodal.serving.session import Folders
    from crossmodal.settings.params import load_params

    contrasts = read_contrasts(arguments.file, arguments.images)
    scores = score_contrasts(contrasts, load_params(), Folders())
    result = contrast_scores(scores, [part.right for part in contrasts], [part.kind for part in contrasts])
    print(json.dumps(result, indent=2) if arguments.json else printable_table(result))


def printable_table(result: dict[str, Any]) -> str:
    """A column a score; rows of all examples, chance, and kinds where there are any."""
    names = list(result["chance"])
    rows = [("all", result), ("chance", result["chance"])]
    if "kinds" in result:
        rows += [("mean of kinds", result["mean_of_kinds"]), *result["kinds"].items()]
    head = f"{'':24}{'examples':>10}" + "".join(f"{name:>8}" for name in names)
    lines = [f"{result['examples']:,} examples, % right", head]
    for label, values in rows:
        count = f"{values['examples']:,}" if "examples" in values else ""
        lines.append(f"{printable(label)[:23]:24}{count:>10}" + "".join(f"{values[name]:8.1f}" for name in names))
    return "\n".join(lines)
