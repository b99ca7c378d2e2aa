"""Search exported images with Qdrant: one vector an image, or sets compared by MaxSim, the sum of the best products.

    crossmodal export --format parquet vectors/
    python benchmarks/search_qdrant.py vectors/                          # in this process, no server
    python benchmarks/search_qdrant.py vectors/ --url http://localhost:6333

Prints R@1, R@5, R@10 of the captions as queries. Needs qdrant-client, in the extra ``engines``. MaxSim is the score of
TERAN with alignment MrSw; MrAVGw is its mean over a caption's words, which ranks images alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from qdrant_client import QdrantClient, models

BATCH = 256


def rows(path: Path) -> Iterator[dict]:
    """Rows of a Parquet file, vectors as arrays (E,) or (S, E)."""
    for batch in pq.ParquetFile(path).iter_batches(BATCH):
        for row in batch.to_pylist():
            name = "vectors" if "vectors" in row else "vector"
            yield {**row, name: np.asarray(row[name], dtype=np.float32)}


def fill(client: QdrantClient, folder: Path, collection: str = "images") -> int:
    """Upload ``images.parquet`` with ids and boxes as payload; returns how many."""
    images = list(rows(folder / "images.parquet"))
    sets = "vectors" in images[0]
    vectors = [row["vectors" if sets else "vector"] for row in images]
    client.create_collection(
        collection,
        vectors_config=models.VectorParams(
            size=vectors[0].shape[-1],
            distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
            if sets
            else None,
        ),
    )
    payload = [{key: row[key] for key in ("id", "file", "boxes")} for row in images]
    client.upload_collection(collection, vectors=vectors, payload=payload, ids=range(len(images)), batch_size=BATCH)
    return len(images)


def search(client: QdrantClient, query: np.ndarray, k: int, collection: str = "images") -> list[tuple[str, float]]:
    """Ids and scores of the k best images for a caption's vector (E,) or words (W, E), best first."""
    found = client.query_points(collection, query=query.tolist(), limit=k, with_payload=["id"]).points
    return [(point.payload["id"], point.score) for point in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that crossmodal export --format parquet wrote")
    parser.add_argument("--url", help="of a server; none: in this process")
    arguments = parser.parse_args()
    client = QdrantClient(url=arguments.url) if arguments.url else QdrantClient(":memory:")
    count, ranks = fill(client, arguments.folder), []
    for row in rows(arguments.folder / "captions.parquet"):
        found = [image for image, _ in search(client, row["vectors" if "vectors" in row else "vector"], 10)]
        ranks.append(found.index(row["image"]) if row["image"] in found else count)
    recalls = ", ".join(f"R@{k} {100 * np.mean(np.array(ranks) < k):.1f}" for k in (1, 5, 10))
    print(f"{len(ranks):,} captions, {count:,} images: {recalls}")


if __name__ == "__main__":
    main()
