"""A folder of new photographs as a gallery: the pipeline's own steps from detector to index.

gallery.json, images.faiss   as in results/evaluation
embeddings.npy               (N, E) float32, L2-normalised: an image's vector, or the mean of its set of vectors
dataset/                     the photographs' records: row n of the embeddings is record n
regions/                     their region store, where a matcher scores pairs
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.captions.encoders import caption_reading
from crossmodal.datasets.assemble import check_images
from crossmodal.datasets.records import Dataset, ImageRecord, Skipped, read_dataset, write_dataset
from crossmodal.datasets.walk import list_files
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import image_vectors
from crossmodal.models.checkpoint import load_matcher
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.retrieval.gallery import GalleryInfo, as_made, save_info
from crossmodal.retrieval.index import IndexKind, build_index, save_index
from crossmodal.runtime import pick_device
from crossmodal.serving.session import Folders, matching_extractor
from crossmodal.settings.derived import image_reading
from crossmodal.settings.params import Params


def embed_folder(
    photographs: Path, out: Path, params: Params, folders: Folders, factory: str
) -> tuple[np.ndarray, GalleryInfo, tuple[Skipped, ...]]:
    """Make a gallery of all photographs in a folder and its subfolders, links followed, in the order of their names.

    Every file is tried, whatever its suffix. Matchers whose items are sets get a shortlist by the mean of each set, of
    ``evaluate.shortlist`` images. Photographs are read by the settings of data/regions, not by those of ``params``.

    Args:
        out: created; must not exist.
        factory: FAISS factory string of the index.

    Returns:
        Vectors (N, E), the gallery's description, and the files left out.

    Raises:
        UserError: there is no readable photograph, or models are missing, damaged or do not belong together.
    """
    model, config = load_matcher(folders.matcher)
    for folder in (folders.regions, folders.captions):
        if (folder / "index.json").is_file():
            params = as_made(params, FeatureStore(folder).settings, folder / "index.json")
    extractor = matching_extractor(params, folders, config)
    dataset = _record(photographs, out / "dataset")
    extract_regions(dataset, extractor, out / "regions", replace(Extraction.of(params), max_broken=0))
    store = FeatureStore(out / "regions")
    rows = np.arange(len(store))
    vectors = image_vectors(model.to(pick_device()), store, rows, params.evaluate.batch_size)
    np.save(out / "embeddings.npy", vectors)
    save_index(build_index(vectors, IndexKind(factory)), out / "images.faiss")
    info = GalleryInfo(
        model=config.model,
        key=config.key,
        images=len(rows),
        captions=0,
        mode="embeddings" if model.pooled else "shortlist_rerank",
        index=factory,
        shortlist=0 if model.pooled else params.evaluate.shortlist,
        settings=image_reading(params) | caption_reading(params),
    )
    save_info(out, info)
    if model.pooled:
        shutil.rmtree(out / "regions")
    return vectors, info, dataset.skipped


def _record(photographs: Path, folder: Path) -> Dataset:
    """Records of the readable photographs, with absolute paths, as a dataset folder."""
    files, skipped = list_files(photographs)
    records = []
    for (name, path), size in zip(files.items(), check_images(list(files.values())), strict=True):
        if isinstance(size, str):
            skipped.append(Skipped(name, size))
        else:
            records.append(ImageRecord(name, str(path.resolve()), "test", *size, captions=()))
    if not records:
        first = f"; {len(skipped)} files or folders skipped, {skipped[0].item}: {skipped[0].reason}" if skipped else ""
        raise UserError(f"{photographs}: no photographs in it that can be read{first}")
    folder.mkdir(parents=True)
    write_dataset(folder, photographs.resolve().name, records, skipped=skipped)
    return read_dataset(folder)
