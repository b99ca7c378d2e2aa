"""Tables of vectors: what is written is what other programs read."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossmodal.serving.vector_table import vector_batch, vector_schema, write_lance, write_parquet

ABOUT = {"model": "tern", "key": "0123"}
SETS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 3), np.float32)]
BOXES = [np.array([[0, 0, 1, 1], [0.25, 0, 0.5, 1]], np.float32), np.array([[0, 0, 1, 1]], np.float32)]
CLASSES = [["star", "disc"], [""]]


def _batch(sets: bool) -> pa.RecordBatch:
    schema = vector_schema(3, sets=sets, about=ABOUT)
    vectors = SETS if sets else np.stack([rows.mean(axis=0) for rows in SETS])
    return vector_batch(schema, ["a", "b"], ["a.jpg", "b.jpg"], vectors, BOXES, CLASSES)


@pytest.mark.parametrize("sets", [False, True])
def test_what_is_written_is_read_back_and_the_bytes_are_the_same(sets, tmp_path):
    batch = _batch(sets)
    assert write_parquet(tmp_path / "a.parquet", batch.schema, [batch]) == 2
    write_parquet(tmp_path / "b.parquet", batch.schema, [batch])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["boxes"] == [[0, 0, 1, 1], [0.25, 0, 0.5, 1]]
    assert rows[0]["classes"] == ["star", "disc"]
    expected = [[[0, 1, 2], [3, 4, 5]], [[1, 1, 1]]] if sets else [[1.5, 2.5, 3.5], [1, 1, 1]]
    assert [row["vectors" if sets else "vector"] for row in rows] == expected


def test_lancedb_ranks_sets_by_the_sum_of_best_cosines(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    batch = _batch(sets=True)
    assert write_lance(tmp_path / "images.lance", batch.schema, [batch]) == 2
    table = lancedb.connect(tmp_path).open_table("images")
    for query in np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]:
        cosines = [query @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T for rows in SETS]
        expected = sorted("ab", key=lambda name: -cosines["ab".index(name)].max(axis=1).sum())
        found = table.search(query, vector_column_name="vectors").metric("cosine").limit(2).to_list()
        assert [row["id"] for row in found] == expected
