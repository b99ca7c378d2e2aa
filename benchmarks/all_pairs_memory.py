"""Peak memory of scoring all pairs of COCO's 5K protocol: 5,000 images x 25,000 captions, streamed to disk.

    python benchmarks/all_pairs_memory.py --model teran                     # every caption
    python benchmarks/all_pairs_memory.py --model sgraf --captions 1024     # two chunks of captions, all images

Region features of 36 x 2048 and token features of 8 to 20 x 768 are made up and stored as the pipeline stores them;
the matcher has the published sizes and random weights. What is reported is the peak of the process from the moment the
stores are open: encoded images, working memory and what the system keeps of the matrix and of the stores in between.
``--captions`` scores fewer of them: memory grows no more after the first chunk but by the part of the matrix that is
written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import resident_peak

from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

IMAGES, CAPTIONS, REGIONS, WORDS = 5_000, 25_000, 36, (8, 20)
PUBLISHED = {
    "teran": {"visual_dim": 2048, "visual_layers": 4, "text_layers": 0, "embed_dim": 1024, "layers": 2},
    "sgraf": {"embed_dim": 1024, "sim_dim": 256},
    "scan": {"embed_dim": 1024},
}


def write_stores(folder: Path, captions: int) -> tuple[FeatureStore, FeatureStore]:
    """Random regions of all images and tokens of the captions."""
    rng = np.random.default_rng(0)
    regions = StoreWriter(folder / "regions", {"features": ("float16", (2048,)), "boxes": ("float32", (4,))})
    for _ in range(IMAGES):
        boxes = np.sort(rng.random((REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4)
        regions.append({"features": rng.standard_normal((REGIONS, 2048), dtype=np.float32), "boxes": boxes})
    regions.close()
    words = StoreWriter(folder / "captions", {"features": ("float16", (768,)), "token_ids": ("int32", ())})
    for length in rng.integers(WORDS[0], WORDS[1] + 1, captions):
        features = rng.standard_normal((length, 768), dtype=np.float32)
        words.append({"features": features, "token_ids": np.arange(length)})
    words.close()
    return FeatureStore(folder / "regions"), FeatureStore(folder / "captions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(PUBLISHED), default="teran")
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    arguments = parser.parse_args()
    settings = load_params().model_copy(update={"model": arguments.model}).model_settings
    settings = settings.model_copy(update=PUBLISHED[arguments.model])
    with tempfile.TemporaryDirectory() as name:
        regions, words = write_stores(Path(name), arguments.captions)
        model = build_model(arguments.model, settings, InputSizes(regions=2048, words=768)).eval()
        matrix = np.lib.format.open_memmap(
            Path(name) / "similarity.npy", mode="w+", dtype=np.float32, shape=(IMAGES, arguments.captions)
        )
        before, started = resident_peak(), time.monotonic()
        captions = np.arange(arguments.captions)
        split = Split(np.arange(IMAGES), captions, captions * IMAGES // len(captions))
        similarity_matrix(SearchInputs(model, regions, words, split, batch_size=256), out=matrix)
        taken, minutes = (resident_peak() - before) / 2**20, (time.monotonic() - started) / 60
        print(
            f"{arguments.model}: {IMAGES:,} images x {arguments.captions:,} captions, {torch.get_num_threads()} threads"
        )
        print(f"{taken:,.0f} MiB beside the {before / 2**20:,.0f} of the process, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
