"""Seconds of one query over 30,000 images, from the sentence to the names of ten images, everything being loaded.

    python benchmarks/search_latency.py                          # the matcher in models/matcher
    python benchmarks/search_latency.py --images 30000 --queries 50

Run it at the root of the repository after ``dvc repro``: models are read from models/. The gallery is made up: one
vector an image, all around those of the test captions; for a matcher of sets also the regions of 30,000 images, which
are those of data/regions over and over, so that the shortlist's pairs are really read, encoded and scored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.scoring import image_vectors
from crossmodal.models.checkpoint import load_matcher
from crossmodal.retrieval.gallery import GalleryInfo, save_info
from crossmodal.retrieval.index import IndexKind, build_index, save_index
from crossmodal.serving.bundle import REGION_ARRAYS
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params

DISTINCT = 500  # images that are encoded; the others are these with some noise


def write_gallery(folder: Path, images: int, folders: Folders) -> None:
    """A gallery as ``crossmodal embed`` makes it."""
    model, config = load_matcher(folders.matcher)
    settings, store = load_params().evaluate, FeatureStore(folders.regions)
    rows = np.arange(min(DISTINCT, len(store)))
    base, generator = image_vectors(model, store, rows, settings.batch_size), np.random.default_rng(0)
    vectors = base[np.arange(images) % len(rows)]
    vectors = vectors + 0.02 * generator.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    save_index(build_index(vectors, IndexKind("Flat")), folder / "images.faiss")
    (folder / "dataset").mkdir()
    write_dataset(
        folder / "dataset", "made up", [ImageRecord(str(n), f"{n}.jpg", "test", 1, 1, ()) for n in range(images)]
    )
    mode = "embeddings" if model.pooled else "shortlist_rerank"
    shortlist = 0 if model.pooled else settings.shortlist
    info = {"model": config.model, "key": config.key, "images": images, "captions": 0, "mode": mode}
    save_info(folder, GalleryInfo(**info, index="Flat", shortlist=shortlist))
    if not model.pooled:
        arrays = {name: store.arrays[name] for name in REGION_ARRAYS if name in store.arrays}
        writer = StoreWriter(folder / "regions", arrays)
        for image in range(images):
            writer.append({name: store.read(rows[image % len(rows)], name) for name in arrays})
        writer.close(store.metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--queries", type=int, default=50)
    arguments = parser.parse_args()
    folders = Folders()
    dataset = read_dataset(folders.dataset)
    rows = split_rows(dataset, "test").images[: arguments.queries]
    sentences = [dataset.records[row].captions[0] for row in rows]
    with tempfile.TemporaryDirectory() as name:
        write_gallery(Path(name), arguments.images, folders)
        session = SearchSession(Path(name), load_params(), folders)
        session.find_images(sentences[0], 10)  # the query that loads what is left
        seconds, processor = [], time.process_time()
        for sentence in sentences:
            started = time.perf_counter()
            found = session.find_images(sentence, 10)
            [session.image_path(result.item) for result in found]
            seconds.append(time.perf_counter() - started)
        processor = (time.process_time() - processor) / len(sentences)
        print(session.describe())
        print(
            f"{len(sentences)} queries, {torch.get_num_threads()} threads: median {np.median(seconds):.4f} s, "
            f"slowest {max(seconds):.4f} s; {processor:.4f} s of processor time each"
        )


if __name__ == "__main__":
    main()
