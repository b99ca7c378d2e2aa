"""Images per second of region extraction: the stage's batches against one image at a time through the same network.

    python benchmarks/region_extraction.py                          # ResNet-50, 96 photographs of three sizes
    python benchmarks/region_extraction.py --batch 64 --workers 8 --images 2048 --precision bf16      # on a GPU

One at a time is the loop of the projects' extraction scripts: read a file, run the network, keep the regions. The
stage decodes in other processes, batches images of one shape, and writes the store. Weights are random, which costs
the same time; pictures are noise as JPEG, 500 x 375 and the like. Both take turns; the store is written once a turn.

The first command, with --images 24 --repeats 1, one thread (OMP_NUM_THREADS=1) and no GPU, on a shared virtual machine
that had other work besides, printed

    resnet50, 24 photographs, batches of 16 (fp32), 2 decoding processes, cpu, 1 threads, median of 1
    one at a time       0.2 images/s    1.00 x
    stage               0.3 images/s    1.17 x

Other work had most of that machine, so that the ratio is what counts. No GPU was at hand.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from measure import seconds
from PIL import Image
from safetensors.torch import save_file

from crossmodal.datasets.decode import read_image
from crossmodal.datasets.records import Dataset, ImageRecord, read_dataset, write_dataset
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.grid import GridExtractor, fetch_backbone
from crossmodal.runtime import pick_device
from crossmodal.settings.params import Grid

SIZES = ((500, 375), (375, 500), (500, 333))


def write_photographs(folder: Path, images: int) -> Dataset:
    """JPEGs that take as long to decode as photographs of their size: smooth noise."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    records = []
    for image in range(images):
        width, height = SIZES[image % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"images/{image}.jpg", quality=90)
        records.append(ImageRecord(str(image), f"images/{image}.jpg", "train", width, height, ("a",)))
    write_dataset(folder, "photographs", records)
    return read_dataset(folder)


def load_network(folder: Path, name: str) -> GridExtractor:
    """A timm backbone with random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    save_file(timm.create_model(name).state_dict(), folder / "random.safetensors")
    weights = str(folder / "random.safetensors")
    fetch_backbone(Grid(model=name, kwargs={}, weights=weights, image_size=224, mean=None, std=None, trained=0), folder)
    return GridExtractor(folder)


def one_at_a_time(dataset: Dataset, network: GridExtractor) -> None:
    """The plain loop."""
    for row in range(len(dataset.records)):
        network([read_image(dataset.image_path(row))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", help="timm name (%(default)s)")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the batches")
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    device = pick_device()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, network = (
            write_photographs(folder / "data", settings.images),
            load_network(folder / "n", settings.model),
        )

        def stage(turn: str) -> None:
            how = Extraction(settings.batch, "grid", workers=settings.workers, precision=settings.precision)
            extract_regions(dataset, network, folder / turn, how)

        network([read_image(dataset.image_path(0))])  # what is loaded on first use
        times = {"one at a time": [], "stage": []}
        for turn in range(settings.repeats):
            times["one at a time"].append(seconds(lambda: one_at_a_time(dataset, network), device.type))
            times["stage"].append(seconds(lambda turn=turn: stage(str(turn)), device.type))
    speed = {form: settings.images / statistics.median(values) for form, values in times.items()}
    print(
        f"{settings.model}, {settings.images} photographs, batches of {settings.batch} ({settings.precision}), "
        f"{settings.workers} decoding processes, {device.type}, {torch.get_num_threads()} threads, "
        f"median of {settings.repeats}"
    )
    for form, value in speed.items():
        print(f"{form:<14} {value:8.1f} images/s   {value / speed['one at a time']:5.2f} x")


if __name__ == "__main__":
    main()
