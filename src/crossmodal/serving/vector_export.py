"""Encoded images and captions of a split as tables for vector databases: vectors or sets, ids, boxes.

``images`` has the columns of vector_table.py. ``captions`` has

id, image   string                             of the caption (IMAGE#NUMBER) and of its image
text        string                             the caption
vector      fixed_size_list<float32>[E]        of matchers with one vector an item, L2-normalised
vectors     list<fixed_size_list<float32>[E]>  of matchers that compare sets, in place of ``vector``

A set is what the matcher compares: TERAN's has a vector a region, in the order of the boxes, and a vector a word
without the ends of the caption; SGRAF's begins with the global vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossmodal.batch import Encoding
from crossmodal.datasets.records import Dataset
from crossmodal.features.named import class_names
from crossmodal.features.store import FeatureStore
from crossmodal.files.whole_folder import whole_folder
from crossmodal.inference.scoring import SearchInputs, evaluating, numbers
from crossmodal.serving.vector_table import vector_batch, vector_schema, write_lance, write_parquet

CHUNK = 1024  # items encoded and written together
WRITERS = {"parquet": write_parquet, "lance": write_lance}
CAPTION_COLUMNS = ("id", "image", "text")


def export_vectors(inputs: SearchInputs, dataset: Dataset, split: str, out: Path, kind: str) -> dict[str, int]:
    """Write ``images`` and ``captions`` of a split into the folder ``out``, which is made once it is complete.

    Args:
        inputs: of that split. split: its name, kept in the tables' metadata.
        kind: parquet or lance; lance makes a database that ``lancedb.connect(out)`` opens.

    Returns:
        Rows of each table; no table of captions where there are none.

    Raises:
        UserError: lance without lancedb; a value is NaN.
    """
    about = {"model": inputs.config.model, "key": inputs.config.key, "dataset": dataset.name, "split": split}
    tables = {"images": _images(inputs, dataset, about)}
    if len(inputs.split.captions):
        tables["captions"] = _captions(inputs, dataset, about)
    counts = {}
    with whole_folder(out) as part:
        for name, batches in tables.items():
            first = next(batches)
            counts[name] = WRITERS[kind](part / f"{name}.{kind}", first.schema, _after(first, batches))
    return counts


def members(encoding: Encoding) -> np.ndarray | list[np.ndarray]:
    """Vectors (B, E), or of sets B arrays (S, E) without padding, float32.

    Raises:
        UserError: a value is NaN.
    """
    vectors = numbers(encoding.vectors)
    if encoding.mask is None:
        return vectors
    return [row[kept] for row, kept in zip(vectors, encoding.mask.cpu().numpy(), strict=True)]


def _images(inputs: SearchInputs, dataset: Dataset, about: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    store, rows = inputs.regions, inputs.split.images
    with evaluating(inputs.model):
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            encoding = inputs.encode_images(slice(start, start + CHUNK))
            schema = vector_schema(encoding.vectors.shape[-1], sets=encoding.mask is not None, about=about)
            yield vector_batch(
                schema,
                [dataset.records[row].id for row in chunk],
                [dataset.records[row].path for row in chunk],
                members(encoding),
                [_boxes(store, row) for row in chunk],
                [class_names(store, row) for row in chunk],
            )


def _captions(inputs: SearchInputs, dataset: Dataset, about: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    split = inputs.split
    images = [dataset.records[row].id for row in split.images]
    texts = [text for row in split.images for text in dataset.records[row].captions]
    first = np.searchsorted(split.caption_image, split.caption_image)  # captions of an image follow each other
    further = [pa.field("image", pa.string()), pa.field("text", pa.string())]
    with evaluating(inputs.model):
        for start in range(0, len(texts), CHUNK):
            rows = range(start, min(start + CHUNK, len(texts)))
            owners = [images[split.caption_image[row]] for row in rows]
            encoding = inputs.encode_captions(slice(start, start + CHUNK))
            schema = vector_schema(
                encoding.vectors.shape[-1], sets=encoding.mask is not None, about=about, further=further
            )
            ids = [f"{owner}#{row - first[row]}" for row, owner in zip(rows, owners, strict=True)]
            none = [np.zeros((0, 4), np.float32)] * len(ids)
            batch = vector_batch(
                schema, ids, ids, members(encoding), none, [()] * len(ids), image=owners, text=texts[start : rows.stop]
            )
            yield batch.select([*CAPTION_COLUMNS, batch.schema.names[2]])


def _after(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _boxes(store: FeatureStore, row: int) -> np.ndarray:
    """Boxes (R, 4) as shares; none of features that came without."""
    return store.read(row, "boxes") if "boxes" in store.arrays else np.zeros((0, 4), np.float32)
