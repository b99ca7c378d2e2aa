"""The three ways to search a split: embeddings in an index, all pairs, or a shortlist whose pairs are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import UserError
from crossmodal.inference.compatibility import check_inputs
from crossmodal.inference.rescore import rescore_leading
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, read_config
from crossmodal.retrieval.gallery import OWN_VECTORS, GalleryInfo, Mode
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.muvera import muvera_vectors
from crossmodal.retrieval.rerank import rerank_shortlists
from crossmodal.retrieval.results import SearchRun, build_indexes, draw_sample, rank_pairs, search_both_ways
from crossmodal.runtime import pick_device, setting_path
from crossmodal.settings.evaluation import Evaluate


def mode_of(setting: str, model: Matcher, name: str) -> Mode:
    """``evaluate.mode`` with ``auto`` resolved; a UserError for embeddings of a matcher that compares sets."""
    if setting == "auto":
        return "embeddings" if model.pooled else "exact_pairwise"
    if setting == "embeddings" and not model.pooled:
        raise UserError(
            f"evaluate.mode embeddings: {name} compares sets of vectors, which FAISS cannot search; "
            "use exact_pairwise or shortlist_rerank"
        )
    return setting


def search_split(inputs: SearchInputs, settings: Evaluate, folder: Path) -> SearchRun:
    """Search the split as ``evaluate.mode`` says; indexes, or the matrix of all pairs, are left in ``folder``.

    Raises:
        UserError: a mode, an index or a shortlist's matcher that does not go with this matcher.
    """
    mode = mode_of(settings.mode, inputs.model, inputs.config.model)
    kind = IndexKind(settings.index, settings.metric, settings.search)
    sample = draw_sample(inputs.split, settings.exact_queries)
    if mode == "embeddings":
        indexes = build_indexes(*inputs.vectors(), kind, folder)
        return search_both_ways(indexes, inputs.split, sample, top_k=settings.top_k)
    if mode == "exact_pairwise":
        matrix = np.lib.format.open_memmap(folder / "similarity.npy", mode="w+", dtype=np.float32, shape=inputs.shape)
        similarity_matrix(inputs, out=matrix)
        rescore_leading(inputs, matrix)
        return rank_pairs(matrix, inputs.split, top_k=settings.top_k)
    indexes = build_indexes(*shortlist_vectors(inputs, settings), kind, folder)
    return rerank_shortlists(inputs, indexes, sample, shortlist=settings.shortlist, top_k=settings.top_k)


def describe(inputs: SearchInputs, settings: Evaluate, dataset: str = "") -> GalleryInfo:
    """The gallery that ``search_split`` leaves in its folder; ``dataset``: digest of what ``inputs`` are made of."""
    config, split = inputs.config, inputs.split
    mode = mode_of(settings.mode, inputs.model, config.model)
    read_by = inputs.regions.settings | inputs.words.settings
    how: dict[str, Any] = {} if mode == "exact_pairwise" else {"index": settings.index}
    if mode == "shortlist_rerank":
        source = settings.shortlist_by
        key = config.key if source in OWN_VECTORS else _shortlist_config(source)[1].key
        how |= {"shortlist": settings.shortlist, "shortlist_by": source, "shortlist_key": key}
        if source == "muvera":
            how["muvera"] = settings.muvera
    images, captions = len(split.images), len(split.captions)
    return GalleryInfo(
        model=config.model,
        key=config.key,
        images=images,
        captions=captions,
        dataset=dataset,
        mode=mode,
        settings=read_by,
        **how,
    )


def cost_line(info: GalleryInfo, searched: SearchRun) -> str:
    """Cost and loss of the search, in one line; all pairs have neither."""
    figures, timings = searched.figures, searched.timings
    if info.mode == "exact_pairwise":
        return "all pairs scored"
    i2t, t2i = figures["i2t"], figures["t2i"]
    recall = f"{i2t['recall_against_flat']:.3f} i2t and {t2i['recall_against_flat']:.3f} t2i"
    index = f"FAISS {info.index}: recall against Flat {recall}, {t2i['bytes_per_vector']:.0f} bytes per vector"
    if info.mode == "embeddings":
        rates = [timings[f"{name}/queries_per_second"] for name in ("i2t", "t2i")]
        return f"{index}, {rates[0]:,.0f} and {rates[1]:,.0f} queries/s, both built in {timings['build_seconds']:.1f} s"
    return (
        f"{index}; shortlists of {info.shortlist} cost {i2t['lost_r1']:.1f} points of R@1 i2t and {t2i['lost_r1']:.1f} "
        f"t2i, {timings['shortlist_seconds']:.1f} s instead of {timings['all_pairs_seconds']:.1f} s for all pairs"
    )


def shortlist_vectors(inputs: SearchInputs, settings: Evaluate) -> tuple[np.ndarray, np.ndarray]:
    """One vector an image (N, E) and a caption (C, E), float32, by which shortlists are found.

    Raises:
        UserError: ``evaluate.shortlist_by`` is muvera and the matcher has no sets; or a folder without a matcher, or
            whose matcher needs other features or has sets too.
    """
    source = settings.shortlist_by
    if source == "own":
        return inputs.vectors()
    if source == "muvera":
        if inputs.model.pooled:
            raise UserError("evaluate.shortlist_by muvera: the matcher has one vector an item, not sets; take own")
        return muvera_vectors(inputs, settings.muvera)
    folder, config = _shortlist_config(source)
    check_inputs(folder, config, inputs.regions, inputs.words)
    model, _ = load_matcher(folder)
    if not model.pooled:
        raise UserError(f"evaluate.shortlist_by {source!r}: a {config.model}, whose items are not one vector")
    return replace(inputs, model=model.to(pick_device()), config=config).vectors()


def _shortlist_config(source: str) -> tuple[Path, MatcherConfig]:
    folder = setting_path(source)
    if not folder.is_dir():
        raise UserError(f"evaluate.shortlist_by {source!r}: no such folder; give a matcher's, own or muvera")
    return folder, read_config(folder)
