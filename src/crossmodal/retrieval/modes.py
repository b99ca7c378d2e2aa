"""The three ways to search a split: embeddings in an index, all pairs, or a shortlist whose pairs are scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, read_config
from crossmodal.params import Evaluate
from crossmodal.retrieval.gallery import GalleryInfo, Mode
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.inputs import check_inputs
from crossmodal.retrieval.rerank import rerank_shortlists
from crossmodal.retrieval.rescore import rescore_leading
from crossmodal.retrieval.search import Searched, draw_sample, rank_pairs, search_both_ways
from crossmodal.retrieval.similarity import caption_vectors, image_vectors, similarity_matrix
from crossmodal.runtime import pick_device, setting_path


@dataclass(frozen=True)
class Material:
    """What is searched: a matcher, the stores that it reads, and the rows of a split."""

    model: Matcher
    config: MatcherConfig
    regions: FeatureStore
    words: FeatureStore
    split: Split


def mode_of(setting: str, model: Matcher, name: str) -> Mode:
    """What ``evaluate.mode`` stands for with this matcher.

    Raises:
        UserError: embeddings of a matcher whose items are sets of vectors.
    """
    if setting == "auto":
        return "embeddings" if model.pooled else "exact_pairwise"
    if setting == "embeddings" and not model.pooled:
        raise UserError(
            f"evaluate.mode embeddings: {name} compares sets of vectors, which FAISS cannot search; "
            "use exact_pairwise or shortlist_rerank"
        )
    return setting


def search_split(material: Material, settings: Evaluate, folder: Path) -> Searched:
    """Search the split as ``evaluate.mode`` says; indexes, or the matrix of all pairs, are left in ``folder``.

    Raises:
        UserError: a mode, an index or a shortlist's matcher that does not go with this matcher.
    """
    model, split, size = material.model, material.split, settings.batch_size
    mode = mode_of(settings.mode, model, material.config.model)
    kind = IndexKind(settings.index, settings.metric, settings.search)
    sample = draw_sample(split, settings.exact_queries)
    if mode == "embeddings":
        images, captions = _vectors(material, size)
        return search_both_ways(images, captions, split, kind=kind, top_k=settings.top_k, sample=sample, folder=folder)
    if mode == "exact_pairwise":
        shape = (len(split.images), len(split.captions))
        matrix = np.lib.format.open_memmap(folder / "similarity.npy", mode="w+", dtype=np.float32, shape=shape)
        stores = material.regions, split.images, material.words, split.captions, size
        similarity_matrix(model, *stores, out=matrix)
        rescore_leading(model, *stores, matrix)
        return rank_pairs(matrix, split, top_k=settings.top_k)
    return rerank_shortlists(
        model,
        material.regions,
        material.words,
        split,
        _vectors(shortlist_material(material, settings.shortlist_by), size),
        kind=kind,
        shortlist=settings.shortlist,
        top_k=settings.top_k,
        sample=sample,
        batch_size=size,
        folder=folder,
    )


def describe(material: Material, settings: Evaluate) -> GalleryInfo:
    """What ``search_split`` leaves, for those who search it again."""
    config, split = material.config, material.split
    mode = mode_of(settings.mode, material.model, config.model)
    read_by = material.regions.settings | material.words.settings
    info = GalleryInfo(config.model, config.key, len(split.images), len(split.captions), mode, settings=read_by)
    if mode == "exact_pairwise":
        return info
    if mode == "embeddings":
        return replace(info, index=settings.index)
    return replace(
        info,
        index=settings.index,
        shortlist=settings.shortlist,
        shortlist_by=settings.shortlist_by,
        shortlist_key=config.key if settings.shortlist_by == "own" else _shortlist_config(settings.shortlist_by)[1].key,
    )


def cost_line(info: GalleryInfo, searched: Searched) -> str:
    """What the search cost and lost, in one line; of all pairs there is nothing to tell."""
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


def shortlist_material(material: Material, source: str) -> Material:
    """The same with the matcher that ``evaluate.shortlist_by`` names.

    Raises:
        UserError: there is none in that folder, it needs other features, or its items are sets of vectors too.
    """
    if source == "own":
        return material
    folder, config = _shortlist_config(source)
    check_inputs(folder, config, material.regions, material.words)
    model, _ = load_matcher(folder)
    if not model.pooled:
        raise UserError(f"evaluate.shortlist_by {source!r}: a {config.model}, whose items are not one vector")
    return Material(model.to(pick_device()), config, material.regions, material.words, material.split)


def _shortlist_config(source: str) -> tuple[Path, MatcherConfig]:
    folder = setting_path(source)
    if not folder.is_dir():
        raise UserError(f"evaluate.shortlist_by {source!r}: no such folder; give a matcher's, or own")
    return folder, read_config(folder)


def _vectors(material: Material, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    images = image_vectors(material.model, material.regions, material.split.images, batch_size)
    return images, caption_vectors(material.model, material.words, material.split.captions, batch_size)
