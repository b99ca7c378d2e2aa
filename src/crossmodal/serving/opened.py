"""Sessions for the server: a gallery with the matcher that made it, or with another one over the same images.

Another matcher needs an index of its own, which is made in a scratch folder from the stored features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from crossmodal import paths
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.inference.compatibility import check_boxes, check_inputs, check_size
from crossmodal.inference.scoring import SearchInputs, image_vectors
from crossmodal.models.checkpoint import load_matcher, read_config
from crossmodal.retrieval.gallery import GalleryInfo, check_made_of, read_info, save_info
from crossmodal.retrieval.index import IndexKind, build_index, save_index
from crossmodal.retrieval.results import build_indexes
from crossmodal.runtime import pick_device
from crossmodal.serving.bundle import unpack
from crossmodal.serving.embedding.record import check_detector
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.serving.shared import open_matcher
from crossmodal.settings.params import Params, load_params

REGISTERED = "models:/"  # how the name of a registered model begins


def open_session(
    gallery: Path | None,
    matcher: str | None,
    params: Params,
    scratch: Path,
    say: Callable[[str], None] = lambda text: None,
) -> SearchSession:
    """A session over a gallery.

    Args:
        gallery: results/evaluation, or what ``crossmodal embed`` made; None: the last evaluated one, or, where there is
            none, that of a registered model, without its photographs.
        matcher: models:/NAME/VERSION, or what ``serving.shared.open_matcher`` takes: a folder, a name on the hub; None:
            models/matcher.
        scratch: an empty folder that stays as long as the session is used.
        say: told what takes its time.

    Raises:
        UserError: something is missing or damaged, or does not belong together.
    """
    folders = Folders()
    if matcher is not None and matcher.startswith(REGISTERED):
        # By name: no other session needs tracking.
        bundle = import_module("crossmodal.tracking.registry").download(matcher, scratch / "model")
        if gallery is None and not (paths.EVALUATION / "gallery.json").is_file():
            return unpack(bundle)
        params = load_params(bundle / "params.yaml")
        folders = replace(folders, **{name: bundle / name for name in ("matcher", "bert", "detector")})
        if not folders.captions.is_dir():
            folders = replace(folders, captions=bundle / "captions")
    else:
        params, folders = open_matcher(matcher, params)
    gallery = gallery or paths.EVALUATION
    info, config = read_info(gallery), read_config(folders.matcher)
    if info.key != config.key and matcher is not None:
        say(f"{gallery} was made by {info.model}: its images are encoded by {config.model} of {matcher}")
        folders = _encode(gallery, params, folders, scratch / "gallery")
        gallery = scratch / "gallery"
    return SearchSession(gallery, params, folders)


def check_same_images(first: SearchSession, second: SearchSession) -> None:
    """See that results of two sessions can be shown together.

    Raises:
        UserError: their galleries are of other images.
    """
    ids = [[session.record(item).id for item in range(session.info.images)] for session in (first, second)]
    if ids[0] != ids[1]:
        raise UserError(
            f"--against: {second.describe()}: other images than {first.describe()}; compare matchers over one gallery"
        )


def _encode(gallery: Path, params: Params, folders: Folders, out: Path) -> Folders:
    """Make an index of a gallery's images and captions by the matcher of ``folders``; the folders of its features."""
    if (gallery / "dataset").is_dir():
        folders = replace(folders, dataset=gallery / "dataset", regions=gallery / "regions")
    if not (folders.regions / "index.json").is_file():
        raise UserError(
            f"{gallery}: keeps no regions that {folders.matcher} could encode; make a gallery by that matcher "
            "(crossmodal embed), and name it"
        )
    check_detector(gallery, folders.detector, made=paths.DETECTOR)
    dataset, regions = read_dataset(folders.dataset), FeatureStore(folders.regions)
    check_made_of(gallery, read_info(gallery), dataset)
    split = split_rows(dataset, "test", regions.left_out)
    model, config = load_matcher(folders.matcher)
    out.mkdir(parents=True)
    kind, read_by, batch = IndexKind("Flat"), regions.settings, params.evaluate.batch_size
    if len(split.captions):
        words = FeatureStore(folders.captions)
        check_inputs(folders.matcher, config, regions, words)
        read_by = read_by | words.settings
        inputs = SearchInputs(model.to(pick_device()), regions, words, split, batch, config)
        build_indexes(*inputs.vectors(), kind, out)
    else:
        stored = regions.arrays["features"][1][0]
        check_size(f"{regions.folder}: region", stored, folders.matcher, config.stored_regions)
        check_boxes(config.model, config.settings, regions)
        read_by = read_info(gallery).settings
        vectors = image_vectors(model.to(pick_device()), regions, np.asarray(split.images), batch)
        save_index(build_index(vectors, kind), out / "images.faiss")
    info = GalleryInfo(
        model=config.model,
        key=config.key,
        images=len(split.images),
        captions=len(split.captions),
        dataset=dataset.digest,
        mode="embeddings" if model.pooled else "shortlist_rerank",
        index=kind.factory,
        shortlist=0 if model.pooled else params.evaluate.shortlist,
        settings=read_by,
    )
    save_info(out, info)
    return folders
