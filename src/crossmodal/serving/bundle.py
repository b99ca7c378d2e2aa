"""Everything that a search needs, copied into one folder (a bundle), which ``crossmodal register`` gives to MLflow.

params.yaml             settings of the pipeline
serving.json            rights of the clients, see Serving
manifest.json           of the dataset that the gallery was made from, with its checksum
matcher/ bert/ detector/     as the stages wrote them; bert/ and detector/ where there are such
captions/               vocabulary.json of a BiGRU; where pairs are scored, the tokens of the gallery's captions
gallery/                gallery.json and indexes, as in results/evaluation
    dataset/            records of the gallery's images alone, without the photographs
    regions/            where pairs are scored, the regions of these images
    finder/             the matcher that makes the shortlists, where it is another one

Of the features, which are large, only the gallery's own go along, never those of training images, and only where the
matcher compares regions with words (``exact_pairwise``, ``shortlist_rerank``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import write_dataset
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.retrieval.gallery import OWN_VECTORS, THRESHOLD, save_info
from crossmodal.runtime import setting_path
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params
from crossmodal.workspace import content_key

REGION_ARRAYS, WORD_ARRAYS = ("features", "boxes"), ("features", "token_ids")  # read by features.batches


class Serving(Record):
    """Rights of a served model's clients. server_files: name files of the machine it runs on as queries."""

    server_files: bool = False


def read_serving(folder: Path) -> Serving:
    """The rights in a bundle; one of a former version, without serving.json, allows nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "serving.json"
    return read_record(path, Serving) if path.is_file() else Serving()


def pack(
    gallery: Path, settings: Path, folders: Folders, out: Path, limit: float, *, server_files: bool = False
) -> SearchSession:
    """Copy everything that a search of ``gallery`` needs into a bundle, and return the session over the original.

    Args:
        gallery: results/evaluation, or a folder that ``crossmodal embed`` wrote. settings: params.yaml.
        out: created; must not exist.
        limit: gigabytes of features that the bundle may hold.

    Raises:
        UserError: an out is missing or damaged, they do not belong together, or the features are more than ``limit``.
    """
    session = SearchSession(gallery, load_params(settings), folders)
    session.load(photographs=False)
    info, split = session.info, session.split
    stores = _stores(session) if info.mode != "embeddings" else []
    size = sum(_bytes(store, rows, arrays) for store, rows, arrays, _ in stores) / 1e9
    if size > limit:
        raise UserError(
            f"{gallery}: mode {info.mode} scores pairs, which takes {size:.2g} GB of features along, more than "
            f"{limit:g}; raise --limit, or evaluate a model with one vector an image, which needs an index alone"
        )
    out.mkdir(parents=True)
    shutil.copy(settings, out / "params.yaml")
    write_json(out / "serving.json", Serving(server_files=server_files).model_dump(), indent=None)
    shutil.copy(session.dataset.folder / "manifest.json", out / "manifest.json")
    for name in ("matcher", "bert", "detector"):
        if (folder := getattr(folders, name)).is_dir():
            shutil.copytree(folder, out / name)
    packed = out / "gallery"
    packed.mkdir()
    for path in gallery.glob("*.faiss"):
        shutil.copy(path, packed / path.name)
    if (gallery / THRESHOLD).is_file():
        shutil.copy(gallery / THRESHOLD, packed / THRESHOLD)
    if info.shortlist_by not in OWN_VECTORS:
        shutil.copytree(setting_path(info.shortlist_by), packed / "finder")
        info = info.model_copy(update={"shortlist_by": "finder"})
    (packed / "dataset").mkdir()
    records = [replace(session.dataset.records[row], objects=()) for row in split.images]
    digest = write_dataset(packed / "dataset", session.dataset.name, records)
    save_info(packed, info.model_copy(update={"dataset": digest}))
    for store, rows, arrays, name in stores:
        _copy_rows(store, rows, arrays, out / name)
    if (folders.captions / "vocabulary.json").is_file():
        (out / "captions").mkdir(exist_ok=True)
        shutil.copy(folders.captions / "vocabulary.json", out / "captions/vocabulary.json")
    return session


def unpack(folder: Path) -> SearchSession:
    """A search over a bundle.

    Raises:
        UserError: it is no bundle.
    """
    folders = Folders(
        dataset=folder / "gallery/dataset",
        regions=folder / "gallery/regions",
        captions=folder / "captions",
        detector=folder / "detector",
        bert=folder / "bert",
        matcher=folder / "matcher",
        evaluation=folder / "gallery",
    )
    return SearchSession(folders.evaluation, load_params(folder / "params.yaml"), folders)


def digest(folders: Iterable[Path]) -> str:
    """A hash of all files of some folders and their names, whatever the folders' paths."""
    found = {
        f"{number}/{path.relative_to(folder).as_posix()}": path
        for number, folder in enumerate(folders)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return content_key({"files": sorted(found)}, [found[name] for name in sorted(found)])


def _stores(session: SearchSession) -> list[tuple[FeatureStore, np.ndarray, tuple[str, ...], str]]:
    """Store, rows, arrays and folder within the bundle of the features that pairs are scored by."""
    split = session.split
    stores = [(FeatureStore(session.regions), split.images, REGION_ARRAYS, "gallery/regions")]
    if len(split.captions):
        stores.append((FeatureStore(session.folders.captions), split.captions, WORD_ARRAYS, "captions"))
    return stores


def _bytes(store: FeatureStore, rows: np.ndarray, arrays: tuple[str, ...]) -> int:
    of_item = sum(
        dtype.itemsize * int(np.prod(shape)) for name, (dtype, shape) in store.arrays.items() if name in arrays
    )
    return int(store.lengths[rows].sum()) * of_item


def _copy_rows(store: FeatureStore, rows: np.ndarray, arrays: tuple[str, ...], out: Path) -> None:
    kept = {name: (str(dtype), shape) for name, (dtype, shape) in store.arrays.items() if name in arrays}
    writer = StoreWriter(out, kept)
    for row in rows:
        writer.append({name: store.read(row, name) for name in kept})
    writer.close()
