"""Vectors of photographs as tables that vector databases read: shards of ``embed`` and files of ``export``.

id        string                             of the photograph, in its gallery or dataset
file      string                             path or address of its file
vector    fixed_size_list<float32>[E]        of matchers with one vector an image, L2-normalised
vectors   list<fixed_size_list<float32>[E]>  of matchers that compare sets, in place of ``vector``
boxes     list<fixed_size_list<float32>[4]>  x1, y1, x2, y2 of each region, as shares of the upright picture
classes   list<string>                       of each region; "" where the detector has no names

The schema's metadata tells which matcher the vectors are of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossmodal.errors import UserError

ABOUT = b"crossmodal"  # key of the schema's metadata
VECTORS = ("vector", "vectors")  # column of one vector an image, and of sets


def vector_schema(
    dimensions: int, *, sets: bool, about: Mapping[str, Any], further: Sequence[pa.Field] = ()
) -> pa.Schema:
    """The schema of a table of vectors, or of sets of them, of E = ``dimensions``.

    Args:
        about: JSON values for the metadata: "model" and "key" of the matcher that encoded them.
        further: columns after those above.
    """
    one = pa.list_(pa.float32(), dimensions)
    vectors = pa.field("vectors", pa.list_(one)) if sets else pa.field("vector", one)
    fields = [
        pa.field("id", pa.string()),
        pa.field("file", pa.string()),
        vectors,
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        pa.field("classes", pa.list_(pa.string())),
    ]
    return pa.schema([*fields, *further], metadata={ABOUT: json.dumps(dict(about)).encode()})


def about(schema: pa.Schema) -> dict[str, Any]:
    """The ``about`` of ``vector_schema`` that a table has; empty for a table of another origin."""
    return json.loads((schema.metadata or {}).get(ABOUT, b"{}"))


def vector_batch(
    schema: pa.Schema,
    ids: Sequence[str],
    files: Sequence[str],
    vectors: np.ndarray | Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    classes: Sequence[Sequence[str]],
    **further: Sequence[Any],
) -> pa.RecordBatch:
    """N rows of ``vector_schema``.

    Args:
        vectors: (N, E), or of sets N arrays (S, E). boxes: N arrays (R, 4). classes: N times R names.
        further: values of further columns by name.
    """
    column = schema.field(2)
    if column.name == "vectors":
        of_images = _lists(vectors, column.type.value_type)
    else:
        of_images = _flat(np.asarray(vectors), column.type)
    names = pa.array([list(of_image) for of_image in classes], schema.field("classes").type)
    columns = [pa.array(ids, pa.string()), pa.array(files, pa.string()), of_images]
    columns += [_lists(boxes, schema.field("boxes").type.value_type), names]
    columns += [pa.array(further[field.name], field.type) for field in list(schema)[len(columns) :]]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a file of one row group a batch, whole under a temporary name, then renamed; returns its rows.

    The same batches give the same bytes.
    """
    part, rows = path.with_name(f"{path.name}.part"), 0
    with pq.ParquetWriter(part, schema, compression="NONE", use_dictionary=False) as writer:
        for batch in batches:  # floats of embeddings do not compress
            writer.write_batch(batch)
            rows += batch.num_rows
    part.replace(path)
    return rows


def write_lance(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write the table ``path``, a folder NAME.lance in the folder that LanceDB connects to; returns its rows.

    Raises:
        UserError: lancedb is not installed, or there is such a table.
    """
    lancedb = require_lancedb(path)
    if path.exists():
        raise UserError(f"{path}: already there; move it away or name another")
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    return lancedb.connect(path.parent).create_table(path.stem, reader, schema=schema).count_rows()


def require_lancedb(path: Path) -> ModuleType:
    """The package lancedb, which is to write ``path``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise UserError(f"{path}: {error}; pip install 'crossmodal[engines]'") from None
    return lancedb


def _flat(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    """(N, E) as N lists of E."""
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, kind.list_size)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind)


def _lists(values: Sequence[np.ndarray], kind: pa.DataType) -> pa.ListArray:
    """N arrays (R, E) as N lists of R lists of E."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.concatenate(values) if len(values) else np.zeros((0, kind.list_size), np.float32)
    return pa.ListArray.from_arrays(pa.array(offsets), _flat(flat, kind), type=pa.list_(kind))
