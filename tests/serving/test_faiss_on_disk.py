"""benchmarks/faiss_on_disk.py finds in shards what comparing with every vector finds."""

import importlib.util
from pathlib import Path

import faiss
import numpy as np
import pytest

from crossmodal.serving.vector_table import vector_batch, vector_schema, write_parquet

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/faiss_on_disk.py"


@pytest.mark.parametrize("sets", [False, True])
def test_the_merged_index_finds_the_nearest_of_all_shards(tmp_path, sets):
    spec = importlib.util.spec_from_file_location("faiss_on_disk", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(rng.integers(1, 5) if sets else 1, 8)).astype(np.float32) for _ in range(90)]
    vectors = np.stack([item.mean(axis=0) / np.linalg.norm(item.mean(axis=0)) for item in items])
    schema = vector_schema(8, sets=sets, about={})
    (tmp_path / "shards/vectors").mkdir(parents=True)
    for start in range(0, 90, 20):
        rows = range(start, min(start + 20, 90))
        values = [items[row] for row in rows] if sets else vectors[rows.start : rows.stop]
        names = [str(row) for row in rows]
        batch = vector_batch(schema, names, names, values, [np.zeros((0, 4))] * len(rows), [()] * len(rows))
        write_parquet(tmp_path / f"shards/vectors/{start:05d}.parquet", schema, [batch])
    script.build(tmp_path / "shards", tmp_path / "out", "IVF4,Flat", sampled=5, shards_a_part=2)
    index = faiss.read_index(str(tmp_path / "out/merged.index"))
    index.nprobe = 4
    found = index.search(vectors[:9] + 0.1, 5)[1]
    np.testing.assert_array_equal(found, np.argsort(-((vectors[:9] + 0.1) @ vectors.T), axis=1)[:, :5])
