"""Images per second of region extraction: the stage's batches against one image at a time through the same network.

    python benchmarks/region_extraction.py                          # three networks, 96 photographs of three sizes
    python benchmarks/region_extraction.py --batch 64 --workers 8 --images 2048 --precision bf16      # on a GPU
    python benchmarks/region_extraction.py --small                  # narrow networks, to see that it runs

One at a time is the loop of the projects' extraction scripts: read a file, run the network, keep the regions. The
stage decodes in other processes, batches images of one shape, and writes the store. Networks: a ResNet-50 grid, the
detector that is fitted on scenes, and bottom-up attention, all with random weights, which cost the same time; pictures
are noise as JPEG, 500 x 375 and the like. Both forms take turns; the store is written once a turn. On a GPU the table
has peak memory and the time of one batch by kind of kernel.

With --networks grid --images 24 --repeats 1, one thread (OMP_NUM_THREADS=1) and no GPU, on a shared virtual machine
that had other work besides, the stage had 1.17 times the images per second of one at a time. No GPU was at hand.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from gpu_table import device_columns, markdown
from measure import seconds
from PIL import Image
from safetensors.torch import save_file

from crossmodal.datasets.decode import read_image
from crossmodal.datasets.records import Dataset, ImageRecord, read_dataset, write_dataset
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.boxes import CAFFE
from crossmodal.regions.bottomup.folder import DetectorFolder, write_folder
from crossmodal.regions.bottomup.network import Architecture, BottomUpNetwork
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.fitted.network import RegionDetector, save_detector
from crossmodal.regions.grid import GridExtractor, fetch_backbone
from crossmodal.runtime import pick_device
from crossmodal.settings.features import Grid
from crossmodal.settings.params import load_params

SIZES = ((500, 375), (375, 500), (500, 333))
SMALL_SIZES = ((96, 72), (72, 96))
PUBLISHED = Architecture(depth=101, width=64, rpn_channels=512, classes=1600, attributes=400)
NARROW = Architecture(depth=50, width=8, rpn_channels=16, classes=20, attributes=7)


def write_photographs(folder: Path, images: int, sizes: Sequence[tuple[int, int]]) -> Dataset:
    """JPEGs that take as long to decode as photographs of their size: smooth noise."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    records = []
    for image in range(images):
        width, height = sizes[image % len(sizes)]
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"images/{image}.jpg", quality=90)
        records.append(ImageRecord(str(image), f"images/{image}.jpg", "train", width, height, ("a",)))
    write_dataset(folder, "photographs", records)
    return read_dataset(folder)


def load_grid(folder: Path, small: bool) -> RegionExtractor:
    """A timm backbone."""
    name = "mobilenetv2_035" if small else "resnet50"
    save_file(timm.create_model(name).state_dict(), folder / "random.safetensors")
    weights, size = str(folder / "random.safetensors"), 64 if small else 224
    fetch_backbone(
        Grid(model=name, kwargs={}, weights=weights, image_size=size, mean=None, std=None, trained=0), folder
    )
    return GridExtractor(folder)


def load_fitted(folder: Path, small: bool) -> RegionExtractor:
    """The Faster R-CNN of scenes, 36 classes and 8 attributes."""
    names = [[f"{kind} {number}" for number in range(count)] for kind, count in (("object", 36), ("colour", 8))]
    save_detector(folder, RegionDetector(*names, width=8 if small else 32, feature_dim=16 if small else 256))
    return TorchvisionRegions(folder, load_params().regions)


def load_bottomup(folder: Path, small: bool) -> RegionExtractor:
    """Bottom-up attention: ResNet-101."""
    architecture = NARROW if small else PUBLISHED
    write_folder(folder, DetectorFolder(architecture, BottomUpNetwork(architecture, CAFFE).state_dict(), [], []), {})
    return BottomUpRegions(folder, load_params().bottomup)


NETWORKS: dict[str, Callable[[Path, bool], RegionExtractor]] = {
    "grid": load_grid,
    "fitted": load_fitted,
    "bottomup": load_bottomup,
}


def one_at_a_time(dataset: Dataset, network: RegionExtractor) -> None:
    """The plain loop."""
    for row in range(len(dataset.records)):
        network([read_image(dataset.image_path(row))])


def measure(name: str, dataset: Dataset, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """A row of the table."""
    device = pick_device().type
    (folder / "network").mkdir(parents=True)
    torch.manual_seed(0)
    network = NETWORKS[name](folder / "network", options.small)
    how = Extraction(options.batch, name, workers=options.workers, precision=options.precision)
    batch = [read_image(dataset.image_path(0))] * options.batch
    network(batch[:1])  # what is loaded on first use
    times = {"one at a time": [], "stage": []}
    for turn in range(options.repeats):
        times["one at a time"].append(seconds(lambda: one_at_a_time(dataset, network), device))
        stage = folder / str(turn)
        times["stage"].append(seconds(lambda stage=stage: extract_regions(dataset, network, stage, how), device))
    speed = {form: options.images / statistics.median(values) for form, values in times.items()}
    row = {"network": name} | {f"{form}, images/s": f"{value:.1f}" for form, value in speed.items()}
    row["ratio"] = f"{speed['stage'] / speed['one at a time']:.2f}"
    return row | device_columns(lambda: network(batch), device)


def rows(arguments: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The table's rows; ``arguments``: of the command line, None for this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the stage")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    if options.small:
        options.images, options.batch, options.workers, options.repeats = min(options.images, 2), 2, 0, 1
    with tempfile.TemporaryDirectory() as name:
        sizes = SMALL_SIZES if options.small else SIZES
        dataset = write_photographs(Path(name) / "data", options.images, sizes)
        return [measure(network, dataset, Path(name) / network, options) for network in options.networks]


def main() -> None:
    print(markdown(rows()))


if __name__ == "__main__":
    main()
