"""One image through the bottom-up attention detector, against its row in a published TSV.

    python benchmarks/bottomup_row.py --weights faster_rcnn_from_caffe_attr.pkl \
        --image COCO_train2014_000000150367.jpg --tsv COCO_train2014_000000150367.tsv
    python benchmarks/bottomup_row.py ... --selection airsplay          # airsplay's way, boxes after regression
    python benchmarks/bottomup_row.py ... --backend detectron2          # the same network as detectron2 builds it

Regions are paired one to one so that the sum of their cosines is the highest. Between the original's row and
airsplay's of COCO_train2014_000000150367, which are of one network and two selections, 15 of the 36 pairs reach a
cosine of 0.999, 21 reach 0.95, and the mean features have a cosine of 0.963 (`--against OTHER.tsv` compares two rows).
Rows in the original layout (6 columns) and LXMERT's (10 columns) are read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.optimize import linear_sum_assignment

from crossmodal.datasets.decode import read_image
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.regions.base import ImageRegions
from crossmodal.regions.bottomup.backend import BottomUpRegions, Detectron2Regions
from crossmodal.regions.bottomup.fetch import fetch_detector
from crossmodal.regions.precomputed.rows import image_key
from crossmodal.regions.precomputed.tsv import TsvRow, parse_line, read_lines
from crossmodal.runtime import project_root
from crossmodal.settings.features import Bottomup


def read_row(path: Path, name: str) -> TsvRow:
    """The row of the image ``name``, which the TSV has under this name or its COCO number.

    Raises:
        UserError: no such row, or it is of no known layout.
    """
    for number, _, line in read_lines(path):
        if image_key(line.partition(b"\t")[0].decode("utf-8", "replace")) == image_key(name):
            return parse_line(line, f"{path}, line {number}")
    raise UserError(f"{path}: no row of {name}")


def print_agreement(ours: ImageRegions | TsvRow, theirs: TsvRow) -> None:
    """Cosines of paired regions and of the mean features, and how far the boxes of near pairs are apart."""
    if ours.features.shape[1] != theirs.features.shape[1]:
        raise UserError(f"features of {ours.features.shape[1]} and of {theirs.features.shape[1]} values")
    units = [row.features / np.linalg.norm(row.features, axis=1, keepdims=True) for row in (ours, theirs)]
    cosines = units[0] @ units[1].T
    pairs = linear_sum_assignment(cosines, maximize=True)
    cosines = cosines[pairs]
    means = [row.features.mean(axis=0) for row in (ours, theirs)]
    mean = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    apart = np.abs(ours.boxes[pairs[0]] - theirs.boxes[pairs[1]]).max(axis=1)
    print(f"regions: {len(ours.boxes)} and {len(theirs.boxes)}, {len(cosines)} pairs")
    for threshold in (0.999, 0.99, 0.95):
        near = cosines > threshold
        boxes = f", their boxes within {apart[near].max():.1f} pixels" if near.any() else ""
        print(f"pairs with a cosine above {threshold}: {near.sum()}{boxes}")
    print(f"cosine of the mean features: {mean:.4f}")


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="published file or address of the detector's weights")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--tsv", type=Path, required=True, help="file with the row of the image")
    parser.add_argument("--against", type=Path, help="in place of --weights: another TSV with the image's row")
    parser.add_argument("--selection", choices=["caffe", "airsplay"], default="caffe")
    parser.add_argument("--backend", choices=["bottomup", "detectron2"], default="bottomup")
    parser.add_argument("--regions", type=int, nargs=2, default=(36, 36), metavar=("MIN", "MAX"))
    arguments = parser.parse_args()
    if (arguments.weights is None) == (arguments.against is None):
        parser.error("one of --weights and --against is needed")
    theirs = read_row(arguments.tsv, arguments.image.stem)
    if arguments.against:
        print_agreement(read_row(arguments.against, arguments.image.stem), theirs)
        return
    fewest, most = arguments.regions
    settings = Bottomup(
        weights=arguments.weights,
        sha256=None,
        names=None,
        selection=arguments.selection,
        min_regions=fewest,
        max_regions=most,
        min_score=0.2,
        nms=0.3,
    )
    with TemporaryDirectory() as folder:
        fetch_detector(settings, Path(folder), project_root() / ".resume" / "downloads")
        make = {"bottomup": BottomUpRegions, "detectron2": Detectron2Regions}[arguments.backend]
        (regions,) = make(Path(folder), settings)([read_image(arguments.image)])
    print_agreement(regions, theirs)


if __name__ == "__main__":
    main()
