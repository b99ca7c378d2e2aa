"""Photographs, in a folder or in webdataset tars, as a gallery or as shards of vectors for other engines.

gallery.json, images.faiss   as in results/evaluation
embeddings.npy               (N, E) float32, L2-normalised: an image's vector, or the mean of its set of vectors
dataset/                     the photographs' records: row n of the embeddings is record n; photographs of tars
regions/                     their region store, where a matcher scores pairs
vectors/                     the same vectors with boxes, classes and checksums, see ``embedding.shards``
embed.json                   what made it, see ``embedding.record``

Shards alone (``form`` "parquet") are the last two, with sets of vectors where the matcher compares sets; "lance" adds
images.lance, the same rows as a table of LanceDB.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from crossmodal.batch import Encoding, Regions
from crossmodal.captions.encoders import caption_reading
from crossmodal.datasets.records import ImageRecord, Skipped, write_dataset
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_json import read_record, write_json
from crossmodal.inference.each import encode_each
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import MatcherConfig, load_matcher
from crossmodal.retrieval.gallery import GalleryInfo, save_info
from crossmodal.retrieval.index import IndexKind, build_index, check_index, save_index
from crossmodal.retrieval.muvera import FixedEncoder
from crossmodal.runtime import pick_device
from crossmodal.serving.embedding.former import STORES, TABLES
from crossmodal.serving.embedding.record import FILE, Embedded, Form, detector_key
from crossmodal.serving.embedding.run import FORMER, Made, make_shards, set_aside
from crossmodal.serving.embedding.shards import DONE, IMAGES, Recipe, empty_copy
from crossmodal.serving.embedding.tasks import Collection, find_tasks
from crossmodal.serving.session import Folders, as_stored
from crossmodal.serving.vector_table import require_lancedb, write_lance
from crossmodal.settings.derived import image_reading
from crossmodal.settings.evaluation import Muvera
from crossmodal.settings.params import Params
from crossmodal.workspace import content_key


@dataclass(frozen=True)
class Summary:
    """What ``embed`` did. images, known: photographs, and those of them that had been computed before.

    size: E. listing: file that names what was left out, ``skipped``.
    """

    model: str
    images: int
    known: int
    size: int
    skipped: tuple[Skipped, ...]
    listing: str


def embed(
    source: str,
    out: Path,
    params: Params,
    folders: Folders,
    *,
    factory: str = "Flat",
    form: Form = "gallery",
    executor: Literal["local", "ray"] = "local",
) -> Summary:
    """Make or bring up to date a gallery, or shards, of all photographs in a folder and its subfolders, or in tars.

    Every file of a folder is tried, whatever its suffix; links are followed. Rows are in the order of the names, of
    tars in their own. Matchers whose items are sets get a shortlist of ``evaluate.shortlist`` images by the mean of
    each set, or by its fixed dimensional encoding where ``evaluate.shortlist_by`` is muvera. Photographs are
    read by the settings of data/regions, not by those of ``params``.

    Where ``out`` is there, photographs that it holds are not computed again, whatever they are called now, and those
    that are gone leave it. The files are, byte for byte, those of a new one. A run that is cut off goes on at its
    shard.

    Args:
        source: folder, or tars: a file, a glob, a pattern with braces or an address.
        factory: FAISS factory string of a gallery's index.
        executor: local: this process, ray: the actors of ``params.ray``.

    Raises:
        UserError: there is no readable photograph, ``out`` is something else or is being made by another process,
            models are missing, damaged or do not belong together, or lancedb is not installed.
    """
    if form == "lance":
        require_lancedb(out)
    if not out.name:  # the working folder or the root
        raise UserError(f"{out}: cannot be replaced by a gallery; name a folder in it")
    with _alone(out):
        return _embed(source, out, params, folders, factory=factory, form=form, executor=executor)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from the folder and its unfinished form.

    Raises:
        UserError: another process is making it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f"{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{out}: another crossmodal embed is making it; wait for its end") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held, so that nobody else has it
        lock.release()


def _embed(
    source: str,
    out: Path,
    params: Params,
    folders: Folders,
    *,
    factory: str,
    form: Form,
    executor: Literal["local", "ray"],
) -> Summary:
    old, part = out.with_name(f"{out.name}.old"), out.with_name(f"{out.name}.part")
    if old.exists() and not out.exists():  # a run ended within _replace
        old.rename(out)
    params = as_stored(params, folders)
    model, config = load_matcher(folders.matcher)
    made_by = _made_by(params, folders)
    if out.exists():
        _check_form(out, form)
    if form == "gallery":
        check_index(_indexed_size(model, config, params), IndexKind(factory))
    collection = find_tasks(source)
    embedded = Embedded(form=form, model=config.model, made_by=made_by, detector=detector_key(folders.detector))
    if part.exists() and not _continues(part, embedded):
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    write_json(part / FILE, embedded.model_dump())
    aside = set_aside(collection.tasks, part.resolve())
    gallery = form == "gallery"
    recipe = Recipe(
        params=params,
        folders=folders,
        out=part.resolve(),
        sets=not model.pooled and not gallery,
        keep_regions=not model.pooled and gallery,
        keep_photographs=gallery,
        made_by=made_by,
        former=(*([out.resolve()] if out.exists() else []), *aside),
    )
    del model  # workers load their own
    made = make_shards(collection.tasks, recipe, executor=executor, cluster=params.ray)
    skipped = (*collection.skipped, *made.skipped)
    if not made.rows:
        first = f"; {len(skipped)} files or folders skipped, {skipped[0].item}: {skipped[0].reason}" if skipped else ""
        shutil.rmtree(part)
        raise UserError(f"{source}: no photographs in it that can be read{first}")
    if gallery:
        size = _make_gallery(part, collection, made, skipped, recipe, factory)
    else:
        column = pq.read_schema(part / TABLES / f"{made.shards[0]}.parquet").field(2).type
        size = (column.value_type if recipe.sets else column).list_size
        write_json(part / "skipped.json", [[item.item, item.reason] for item in skipped])
        if form == "lance":
            _write_table(part, made.shards)
    for name in (DONE, FORMER, STORES):
        shutil.rmtree(part / name, ignore_errors=True)
    _replace(out, part, old)
    listing = "dataset/manifest.json" if gallery else "skipped.json"
    return Summary(config.model, made.rows, made.known, size, skipped, listing)


def _replace(out: Path, part: Path, old: Path) -> None:
    """Make ``part`` the folder ``out``; ``old`` is that until it is gone."""
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_table(part: Path, shards: Sequence[str]) -> None:
    """Copy the shards into one table of a LanceDB database."""
    files = [part / TABLES / f"{name}.parquet" for name in shards]
    table = part / "images.lance"
    shutil.rmtree(table, ignore_errors=True)  # of a run that was cut off
    batches = (batch for file in files for batch in pq.ParquetFile(file).iter_batches())
    write_lance(table, pq.read_schema(files[0]), batches)


@torch.inference_mode()
def _indexed_size(model: Matcher, config: MatcherConfig, params: Params) -> int:
    """Length of the vectors that a gallery's index holds, by an image without content."""
    rows = config.image["cut"]["rows"] if config.image else 1  # that a trained backbone needs of an image
    shape = (1, rows)
    blank = Regions(torch.zeros(*shape, config.stored_regions), torch.zeros(*shape, 4), torch.ones(shape, dtype=bool))
    encoding = model.encode_regions(blank)
    size = encoding.vectors.shape[-1]
    if model.pooled or params.evaluate.shortlist_by != "muvera":
        return size
    return FixedEncoder(params.evaluate.muvera, size).items(encoding).shape[-1]


def _made_by(params: Params, folders: Folders) -> str:
    """Key of all that a photograph's row depends on."""
    settings = image_reading(params) | {"regions.batch_size": params.regions.batch_size}
    files = [path for folder in (folders.detector, folders.matcher) for path in sorted(folder.glob("*"))]
    return content_key(settings, [path for path in files if path.is_file()])


def _check_form(out: Path, form: Form) -> None:
    if not (out / FILE).is_file():
        raise UserError(f"{out}: already there, and not made by crossmodal embed; move it away or name another folder")
    found = read_record(out / FILE, Embedded)
    if found.form != form:
        raise UserError(f"{out}: made with --format {found.form}, now {form}; move it away or name another folder")


def _continues(part: Path, embedded: Embedded) -> bool:
    """Whether an unfinished folder was begun in the same form, by the same models and settings."""
    try:
        return read_record(part / FILE, Embedded) == embedded
    except UserError:
        return False


def _make_gallery(
    part: Path, collection: Collection, made: Made, skipped: Sequence[Skipped], recipe: Recipe, factory: str
) -> int:
    """Write what a search needs besides the shards; returns E."""
    params, config = recipe.params, load_matcher(recipe.folders.matcher)[1]
    columns = ["id", "file", "vector", "width", "height"]
    tables = [pq.read_table(part / TABLES / f"{name}.parquet", columns=columns) for name in made.shards]
    vectors = np.concatenate([_matrix(table["vector"]) for table in tables])
    np.save(part / "embeddings.npy", vectors)
    muvera = params.evaluate.muvera if recipe.keep_regions and params.evaluate.shortlist_by == "muvera" else None
    searched = _fixed_encodings(part, made.shards, recipe, muvera) if muvera else vectors
    save_index(build_index(searched, IndexKind(factory)), part / "images.faiss")
    tars = bool(collection.tasks[0].tar)
    records = [
        ImageRecord(
            row["id"], f"images/{row['id']}" if tars else row["file"], "test", row["width"], row["height"], captions=()
        )
        for table in tables
        for row in table.drop_columns("vector").to_pylist()
    ]
    (part / IMAGES).parent.mkdir(exist_ok=True)
    digest = write_dataset((part / IMAGES).parent, collection.name, records, skipped=skipped)
    if recipe.keep_regions:
        _merge_regions(part, made.shards)
    info = GalleryInfo(
        model=config.model,
        key=config.key,
        images=len(records),
        captions=0,
        dataset=digest,
        mode="shortlist_rerank" if recipe.keep_regions else "embeddings",
        index=factory,
        shortlist=params.evaluate.shortlist if recipe.keep_regions else 0,
        shortlist_by="muvera" if muvera else "own",
        muvera=muvera,
        settings=image_reading(params) | caption_reading(params),
    )
    save_info(part, info)
    return vectors.shape[1]


def _fixed_encodings(part: Path, shards: Sequence[str], recipe: Recipe, settings: Muvera) -> np.ndarray:
    """Sets of all images as MUVERA's encodings, (N, M); each alone, so that its bits do not depend on others."""
    model, found = load_matcher(recipe.folders.matcher)[0].to(pick_device()), []
    for name in shards:
        for vectors in map(torch.from_numpy, encode_each(model, FeatureStore(part / STORES / name), sets=True)):
            one = Encoding(vectors[None], torch.ones(1, len(vectors), dtype=torch.bool))
            found.append(FixedEncoder(settings, vectors.shape[-1]).items(one).numpy())
    return np.concatenate(found)


def _merge_regions(part: Path, shards: Sequence[str]) -> None:
    """Concatenate the regions of the shards."""
    writer, metadata = None, {}
    for name in shards:
        store = FeatureStore(part / STORES / name)
        if writer is None:
            writer, metadata = empty_copy(store, part / "regions"), store.metadata
        for row in range(len(store)):
            writer.append({array: store.read(row, array) for array in store.arrays})
    writer.close(metadata)


def _matrix(column: Any) -> np.ndarray:
    """A column of N vectors as (N, E)."""
    flat = column.combine_chunks()
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(len(flat), -1)
