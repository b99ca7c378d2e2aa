"""Shards of vectors: tasks go in, a Parquet file for every SHARD_ROWS photographs comes out.

    vectors/00000-00003.parquet          see ``vector_table``; further columns: sha256, width, height
    region_parts/00000-00003/            regions of the same rows, where a gallery needs them
    done/00000-00003.json                what was read, and left out; a shard with it is complete

A photograph's row depends on its bytes, the models and the settings, not on other photographs. Those that were embedded
before are copied.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossmodal.datasets.archives.webdataset import unpack_samples
from crossmodal.datasets.assemble import DECODERS
from crossmodal.datasets.decode import decode_sized
from crossmodal.features.named import class_names
from crossmodal.features.store import SETTINGS, FeatureStore, StoreWriter
from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.inference.each import encode_each
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import load_matcher, read_config
from crossmodal.regions.base import ImageRegions, RegionExtractor
from crossmodal.regions.extraction.extract import autocast, region_arrays, store_row
from crossmodal.runtime import loaded_once, pick_device
from crossmodal.serving.embedding.former import STORES, TABLES, Former, as_arrays
from crossmodal.serving.embedding.tasks import SHARD_ROWS, Task, checksum
from crossmodal.serving.session import Folders, matching_extractor
from crossmodal.serving.vector_table import vector_batch, vector_schema, write_parquet
from crossmodal.settings.derived import image_reading, region_backend
from crossmodal.settings.params import Params

DONE = "done"
IMAGES = "dataset/images"
FURTHER = [pa.field("sha256", pa.string()), pa.field("width", pa.int32()), pa.field("height", pa.int32())]


class Done(Record):
    """A finished shard. version: of what it was made from. rows, known: photographs, and those of them copied.

    last: of its tar. skipped: [name, reason] of what was left out.
    """

    version: str | None
    rows: int
    known: int
    last: bool
    skipped: list[list[str]]


@dataclass(frozen=True)
class Recipe:
    """Model and settings of all shards: the same for every worker.

    out: folder of the shards. sets: tables of sets, not of one vector an image. keep: regions and photographs of tars
    stay, as a gallery needs them. former: folders to copy from. made_by: key of models and settings.
    """

    params: Params
    folders: Folders
    out: Path
    sets: bool
    keep_regions: bool
    keep_photographs: bool
    made_by: str
    former: tuple[Path, ...] = ()


@dataclass
class _Found:
    """Photographs that were computed. rows: of the store, by checksum. size: (width, height) by checksum."""

    store: FeatureStore | None = None
    vectors: list[np.ndarray] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


class ShardMaker:
    """Makes the shards of tasks. Models are loaded when the first new photograph comes."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.params = recipe, recipe.params
        self.config = read_config(recipe.folders.matcher)
        self.former = Former(recipe.former, recipe.made_by, regions=recipe.keep_regions)

    @loaded_once
    def model(self) -> Matcher:
        return load_matcher(self.recipe.folders.matcher)[0].to(pick_device())

    @loaded_once
    def extractor(self) -> RegionExtractor:
        return matching_extractor(self.params, self.recipe.folders, self.config)

    def make(self, task: Task) -> None:
        """Write the shards of a task that are not done.

        Raises:
            UserError: a tar cannot be read, or the models are missing or damaged.
        """
        if not task.tar:
            self._shard(task.name, [(name, path, path) for name, path in task.files], task.version, last=True)
            return
        with tempfile.TemporaryDirectory(dir=self.recipe.out, prefix=".tar-") as temporary:
            folder = Path(temporary)
            if self.recipe.keep_photographs:
                folder = self.recipe.out / IMAGES / task.folder
            samples = unpack_samples(task.tar, folder, texts=False)
            photographs = [
                (f"{task.folder}/{name}", str(folder / name), f"tar://{name}::{task.tar}") for name in samples.images
            ]
            starts = range(0, max(len(photographs), 1), SHARD_ROWS)
            for number, start in enumerate(starts):
                skipped = [[f"{task.folder}/{item.item}", item.reason] for item in samples.skipped] if not start else []
                cut, name = photographs[start : start + SHARD_ROWS], f"{task.name}-{number:05d}"
                self._shard(name, cut, task.version, last=start == starts[-1], skipped=skipped)
                for item, _ in read_done(self.recipe.out, name).skipped:  # of what was unpacked, which may stay
                    (folder / item.removeprefix(f"{task.folder}/")).unlink(missing_ok=True)

    def _shard(
        self,
        name: str,
        photographs: Sequence[tuple[str, str, str]],
        version: str | None,
        *,
        last: bool,
        skipped: Sequence[list[str]] = (),
    ) -> None:
        """``photographs``: id, path on this machine and address of each."""
        out = self.recipe.out
        if version is not None and read_done(out, name, version):
            return
        paths = [Path(path) for _, path, _ in photographs]
        with ThreadPoolExecutor(DECODERS) as pool:
            sums = list(pool.map(checksum, paths))
        with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as temporary:
            found = self._compute(paths, sums, Path(temporary) / "regions")
            good = [row for row, key in enumerate(sums) if key in found.rows or key in self.former]
            if good:
                self._write_table(name, [photographs[row] for row in good], [sums[row] for row in good], found)
                if self.recipe.keep_regions:
                    self._write_regions(out / STORES / name, [sums[row] for row in good], found)
        left_out = [[photographs[row][0], reason] for row, reason in sorted(found.reasons.items())]
        known = sum(sums[row] not in found.rows for row in good)
        done = Done(version=version, rows=len(good), known=known, last=last, skipped=[*skipped, *left_out])
        write_json(out / DONE / f"{name}.json", done.model_dump())

    def _compute(self, paths: Sequence[Path], sums: Sequence[str | None], folder: Path) -> _Found:
        """Regions and vectors of the photographs that are not known, each content once."""
        found, missing = _Found(), {}
        for row, key in enumerate(sums):
            if key is None or key not in self.former:
                missing.setdefault(key or f"row {row}", []).append(row)
        if not missing:
            return found
        first = [rows[0] for rows in missing.values()]
        with ThreadPoolExecutor(DECODERS) as pool:
            decoded = _ahead(pool, decode_sized, [paths[row] for row in first], 2 * DECODERS)
            writer, order = None, []
            for batch in _batches(zip(missing.items(), decoded, strict=True), self.params.regions.batch_size, found):
                if writer is None:
                    arrays = region_arrays(self.extractor.feature_dim, getattr(self.extractor, "dtype", "float16"))
                    writer = StoreWriter(folder, arrays)
                for (key, image, size), regions in zip(
                    batch, self._regions([image for _, image, _ in batch]), strict=True
                ):
                    writer.append(store_row(regions, image.shape))
                    found.rows[key], found.sizes[key] = len(order), size
                    order.append(key)
        for row, key in enumerate(sums):
            if key is None:
                found.reasons.setdefault(row, "unreadable image (it came while it was read)")
        if writer is not None:
            writer.close(self._metadata())
            found.store = FeatureStore(folder)
            found.vectors = encode_each(self.model, found.store, sets=self.recipe.sets)
        return found

    def _regions(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Regions of a batch, each image's to the last bit as without the others: see ``RegionExtractor``."""
        with autocast(self.params.regions.precision):
            if not getattr(self.extractor, "one_shape", False):
                return [self.extractor([image])[0] for image in images]
            missing = self.params.regions.batch_size - len(images)
            return self.extractor(images + images[-1:] * missing)[: len(images)]

    def _metadata(self) -> dict[str, Any]:
        return {
            "backend": region_backend(self.params),
            "feature_dim": self.extractor.feature_dim,
            "classes": list(getattr(self.extractor, "classes", ())),
            "attributes": list(getattr(self.extractor, "attributes", ())),
            SETTINGS: image_reading(self.params),
        }

    def _write_table(
        self, name: str, photographs: Sequence[tuple[str, str, str]], sums: Sequence[str], found: _Found
    ) -> None:
        rows = [self._row(key, found) for key in sums]
        column = "vectors" if self.recipe.sets else "vector"
        vectors = [row[column] for row in rows]
        about = {"model": self.config.model, "key": self.config.key, "made_by": self.recipe.made_by}
        schema = vector_schema(vectors[0].shape[-1], sets=self.recipe.sets, about=about, further=FURTHER)
        batch = vector_batch(
            schema,
            [photograph[0] for photograph in photographs],
            [photograph[2] for photograph in photographs],
            vectors if self.recipe.sets else np.stack(vectors),
            [row["boxes"] for row in rows],
            [row["classes"] for row in rows],
            sha256=list(sums),
            width=[row["width"] for row in rows],
            height=[row["height"] for row in rows],
        )
        path = self.recipe.out / TABLES / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, schema, [batch])

    def _row(self, key: str, found: _Found) -> dict[str, Any]:
        if key in found.rows:
            row, store = found.rows[key], found.store
            width, height = found.sizes[key]
            return {
                ("vectors" if self.recipe.sets else "vector"): found.vectors[row],
                "boxes": store.read(row, "boxes"),
                "classes": class_names(store, row),
                "width": width,
                "height": height,
            }
        row = self.former.row(key)
        if self.recipe.sets:
            row["vectors"] = as_arrays(row["vectors"], len(row["vectors"][0]))
        else:
            row["vector"] = np.asarray(row["vector"], np.float32)
        return row | {"boxes": as_arrays(row["boxes"], 4)}

    def _write_regions(self, folder: Path, sums: Sequence[str], found: _Found) -> None:
        def row_of(key: str) -> tuple[FeatureStore, int]:
            return (found.store, found.rows[key]) if key in found.rows else self.former.regions(key)

        writer = None
        for store, row in map(row_of, sums):
            if writer is None:
                writer = empty_copy(store, folder)
            writer.append({array: store.read(row, array) for array in store.arrays})
        writer.close(store.metadata)


def empty_copy(store: FeatureStore, folder: Path) -> StoreWriter:
    """A new store of the same arrays; what is in the folder is removed."""
    writer = StoreWriter(folder, {name: (str(dtype), shape) for name, (dtype, shape) in store.arrays.items()})
    writer.drop_from(0)
    return writer


def read_done(out: Path, name: str, version: str | None = None) -> Done | None:
    """The record of a shard that is done, in the ``version`` that is asked for (None: any), or None."""
    path = out / DONE / f"{name}.json"
    if not path.is_file():
        return None
    done = read_record(path, Done)
    return done if version is None or done.version == version else None


def _ahead(pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: Iterable[Any], count: int) -> Iterator[Any]:
    """``map`` by the threads of a pool, ``count`` results ahead of the caller: pictures are large."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(
    decoded: Iterable[tuple[tuple[str, list[int]], Any]], size: int, found: _Found
) -> Iterator[list[tuple[str, np.ndarray, tuple[int, int]]]]:
    """Checksum, pixels and size of the pictures in lists of ``size``; what is wrong with others goes to ``found``."""
    batch = []
    for (key, rows), picture in decoded:
        if isinstance(picture, str):
            found.reasons |= dict.fromkeys(rows, picture)
            continue
        batch.append((key, *picture))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
