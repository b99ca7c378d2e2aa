"""SPICE F of all pairs, from the scene graphs of captions and of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from crossmodal.evaluation.spice.java import Graph, Scored, Spice
from crossmodal.evaluation.spice.synonyms import Synonyms
from crossmodal.runtime import progress
from crossmodal.terminal import warn

_ARITIES = (1, 2, 3)  # objects, attributes, relations
_CHUNK = 256
_CLOSE = 1e-6  # float32


def spice_relevance(
    captions: Sequence[str], references: Sequence[Sequence[str]], work: Path, out: np.ndarray | None = None
) -> np.ndarray:
    """SPICE F of every caption against the references of every image: (C, N) float32, from 0; 0 is nothing in common.

    SPICE itself scores one pair for each image; a warning says how many of them the matrix has otherwise, if any.

    Args:
        captions: C candidates. references: the captions of each of N images, in any number; none gives 0.
        work: folder for what is parsed so far; an interrupted call resumes from it.
        out: (C, N) float32 to write to, a memory map where the matrix is larger than memory may be.

    Raises:
        UserError: the program or a part of it is missing, or it fails; see ``Spice``.
    """
    spice = Spice()
    graphs, scored = spice.parse(captions, references, work)
    synonyms = Synonyms(spice.meteor)
    _compare(scored, synonyms)
    return graph_relevance(graphs, [pair.image for pair in scored], synonyms, out)


def graph_relevance(
    captions: Sequence[Graph], images: Sequence[Graph], synonyms: Synonyms, out: np.ndarray | None = None
) -> np.ndarray:
    """F of every caption's graph against every image's: (C, N) float32."""
    concepts: dict[str, int] = {}
    for graph in (*captions, *images):
        for concept in (concept for found in graph for concept in found):
            concepts.setdefault(concept, len(concepts))
    alike = _alike(list(concepts), synonyms)
    parts = []  # of objects, attributes and relations: how often captions have them, where images do
    for arity in _ARITIES:
        theirs, held = _incidence(captions, arity, concepts)
        wanted, there = _incidence(images, arity, concepts)
        parts.append((held, _found(theirs, wanted, there, alike)))
    sizes, image_sizes = (np.array([len(graph) for graph in graphs], dtype=np.int64) for graphs in (captions, images))
    matrix = np.empty((len(captions), len(images)), dtype=np.float32) if out is None else out
    for start in progress(range(0, len(captions), _CHUNK), desc="SPICE", leave=False):
        block = slice(start, start + _CHUNK)
        matched = sum(held[block] @ found for held, found in parts).toarray()
        total = sizes[block, None] + image_sizes
        matrix[block] = np.divide(2 * matched, total, out=np.zeros(total.shape), where=total > 0)
    return matrix


def _alike(concepts: list[str], synonyms: Synonyms) -> sparse.csr_array:
    """(V, V), not 0 where two concepts share a word or a synset. A merged concept has its words between slashes."""
    keys: dict[str | int, int] = {}
    rows, columns = [], []
    for row, concept in enumerate(concepts):
        words = set(concept.split("/"))
        for key in words.union(*map(synonyms.synsets, words)):
            rows.append(row)
            columns.append(keys.setdefault(key, len(keys)))
    shape = (len(concepts), len(keys))
    has = sparse.csr_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)
    return has @ has.T


def _incidence(graphs: Sequence[Graph], arity: int, concepts: dict[str, int]) -> tuple[np.ndarray, sparse.csr_array]:
    """The T different tuples of one arity as concept numbers (T, arity), and how often each graph has each (G, T)."""
    numbers: dict[tuple[str, ...], int] = {}
    entries = [
        (row, numbers.setdefault(found, len(numbers)))
        for row, graph in enumerate(graphs)
        for found in graph
        if len(found) == arity
    ]
    rows, columns = np.array(entries, dtype=np.int64).reshape(-1, 2).T
    members = np.array([[concepts[concept] for concept in found] for found in numbers], dtype=np.int64)
    counts = np.ones(len(entries), dtype=np.int32)
    held = sparse.coo_array((counts, (rows, columns)), shape=(len(graphs), len(numbers))).tocsr()  # repeats are added
    return members.reshape(-1, arity), held


def _found(
    theirs: np.ndarray, wanted: np.ndarray, there: sparse.csr_array, alike: sparse.csr_array
) -> sparse.csr_array:
    """(T, N), 1 where an image has a tuple like that of the caption: every member alike, position by position."""
    blocks = [sparse.csr_array((0, there.shape[0]), dtype=np.int32)]
    for start in range(0, len(theirs), _CHUNK):
        rows = theirs[start : start + _CHUNK].T
        similar = alike[rows[0]][:, wanted[:, 0]]
        for own, other in zip(rows[1:], wanted.T[1:], strict=True):
            similar = similar.multiply(alike[own][:, other])
        blocks.append((similar.astype(bool) @ there.T.astype(bool)).astype(np.int32))
    return sparse.csr_array(sparse.vstack(blocks))


def _compare(scored: Sequence[Scored], synonyms: Synonyms) -> None:
    """Warn where SPICE's own scores differ from ours of the same graphs."""
    ours = graph_relevance([pair.caption for pair in scored], [pair.image for pair in scored], synonyms).diagonal()
    off = np.abs(ours - [pair.f for pair in scored])
    if np.any(off > _CLOSE):
        count = np.count_nonzero(off > _CLOSE)
        warn(f"SPICE itself scores {count:,} of {len(off):,} pairs otherwise, by up to {off.max():.3f}")
