"""An index on disk over the shards of ``crossmodal embed --format parquet``: FAISS's inverted lists in one mapped file.

    python benchmarks/faiss_on_disk.py results/vectors index/ --factory IVF16384,PQ64

A part is the index of some shards; parts can be made by several machines. Row numbers of the index count through the
shards in the order of their names. Of matchers that compare sets, what is indexed is the mean of each set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
from faiss.contrib.ondisk import merge_ondisk


def read_vectors(shard: Path) -> np.ndarray:
    """One vector a row: (N, E) float32, L2-normalised."""
    table = pq.read_table(shard)
    if "vector" in table.column_names:
        return _matrix(table["vector"].combine_chunks())
    sets = table["vectors"].combine_chunks()
    lengths = np.diff(sets.offsets.to_numpy())
    sums = np.add.reduceat(_matrix(sets.flatten()), np.cumsum(lengths) - lengths)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def build(shards: Path, out: Path, factory: str, *, sampled: int, shards_a_part: int) -> faiss.Index:
    """Train on ``sampled`` shards, index all of them part by part, and merge the parts in ``out``, which is made."""
    paths = sorted((shards / "vectors").glob("*.parquet"))
    out.mkdir(parents=True)
    sample = np.concatenate([read_vectors(path) for path in paths[:: max(len(paths) // sampled, 1)]])
    index = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    faiss.write_index(index, str(out / "trained.index"))
    parts, rows = [], 0
    for start in range(0, len(paths), shards_a_part):
        part = faiss.read_index(str(out / "trained.index"))
        for path in paths[start : start + shards_a_part]:
            vectors = read_vectors(path)
            part.add_with_ids(vectors, np.arange(rows, rows + len(vectors)))
            rows += len(vectors)
        parts.append(str(out / f"part{start:08d}.index"))
        faiss.write_index(part, parts[-1])
    # Not by shift_ids: of parts of 40, 40 and 10 rows FAISS 1.15.1 numbers the third's from 50.
    merge_ondisk(index, parts, str(out / "merged.ivfdata"))
    faiss.write_index(index, str(out / "merged.index"))
    return index


def _matrix(vectors: object) -> np.ndarray:
    return vectors.flatten().to_numpy().reshape(len(vectors), -1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--factory", default="IVF16384,PQ64", help="inverted lists of any kind (%(default)s)")
    parser.add_argument("--sampled", type=int, default=2000, help="shards that it is trained on (%(default)s)")
    parser.add_argument("--shards-a-part", type=int, default=2000, help="(%(default)s)")
    given = parser.parse_args()
    made = build(given.shards, given.out, given.factory, sampled=given.sampled, shards_a_part=given.shards_a_part)
    print(f"{made.ntotal:,} vectors in {given.out}/merged.index; read it with faiss.read_index, nprobe is to be set")
