"""Export of the feature store to the files of the SCAN family of projects (format: see ``precomputed.scan``)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.files.whole_folder import whole_folder
from crossmodal.runtime import check_space, progress

NAMES = {"train": "train", "val": "dev", "test": "test"}
CAPTIONS = 5  # of every image: the projects count on it


def export_scan(dataset: Dataset, store: FeatureStore, out: Path, *, pad: bool) -> dict[str, int]:
    """Write ``{split}_ims.npy``, ``{split}_caps.txt`` and ``{split}_ids.txt`` of train, dev and test.

    ``ims`` has each image once, ``caps`` its first five captions, ``ids`` its id. Images left out of the store are not
    exported.

    Args:
        store: row i is of record i.
        out: made, once it is complete.
        pad: append zeros to images with fewer regions than others.

    Returns:
        Number of images of every split written.

    Raises:
        UserError: the store is of another dataset, images differ in their number of regions and ``pad`` is False,
            an image has fewer than five captions, or there is not enough space.
    """
    if len(store) != len(dataset.records):
        raise UserError(f"{store.folder}: {len(store):,} rows, {dataset.folder} has {len(dataset.records):,} images")
    splits = {name: split_rows(dataset, split, store.left_out).images for split, name in NAMES.items()}
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *splits.values()])
    if not len(rows):
        raise UserError(f"{dataset.folder}: no images in train, val or test")
    fewest, most = int(store.lengths[rows].min()), int(store.lengths[rows].max())
    if fewest != most and not pad:
        raise UserError(
            f"{store.folder}: images have {fewest} to {most} regions, this format has as many of each; --pad fills up"
        )
    for row in rows:
        record = dataset.records[row]
        if len(record.captions) < CAPTIONS:
            found = len(record.captions)
            raise UserError(f"{dataset.folder}: image {record.id} has {found} captions, this format has {CAPTIONS}")
        if re.search(r"[\r\n]", record.id):
            raise UserError(f"{dataset.folder}: the id {record.id!r} holds a line end, this format has an id a line")
    check_space(out, len(rows) * most * store.arrays["features"][1][0] * 4, "the export")
    with whole_folder(out) as part:
        for name, images in splits.items():
            _write_split(dataset, store, images, part / name, most)
    return {name: len(images) for name, images in splits.items()}


def _write_split(dataset: Dataset, store: FeatureStore, rows: np.ndarray, stem: Path, regions: int) -> None:
    shape = (len(rows), regions, store.arrays["features"][1][0])
    array = np.lib.format.open_memmap(f"{stem}_ims.npy", mode="w+", dtype=np.float32, shape=shape)
    for index, row in enumerate(progress(rows, desc=stem.name, unit="image")):
        array[index, : store.lengths[row]] = store.read(int(row), "features")
    array.flush()
    records = [dataset.records[row] for row in rows]
    captions = [" ".join(caption.split()) for record in records for caption in record.captions[:CAPTIONS]]
    Path(f"{stem}_caps.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")
    Path(f"{stem}_ids.txt").write_text("".join(f"{record.id}\n" for record in records), encoding="utf-8")
