"""Runs and relevance judgements (qrels) in the format of TREC, which trec_eval, ir_measures and ranx read.

A line of a run is ``query Q0 item rank score tag``, one of qrels ``query 0 item relevance``. Evaluators order the items
of a query by the score, whatever the rank says, and break ties each in its own way: the scores that are written differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import RECALL_AT, summarise
from crossmodal.evaluation.protocols import Metrics, binary_metrics
from crossmodal.evaluation.ranking import Ranking
from crossmodal.files.text_files import read_text, split_lines

CUT = tuple(
    f"{name}{k}" for name in ("precision", "recall_all", "f1_", "ap", "cg", "dcg", "ndcg") for k in RECALL_AT
)  # metrics that read the first ten items alone


def trec_id(name: str) -> str:
    """A name without white space: that and the percent sign are written as in an address, ``%20``."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), name)


def write_qrels(path: Path, queries: Sequence[str], items: Sequence[str], pairs: Iterable[tuple[int, int]]) -> None:
    """Write the relevant pairs (query, item), as indices into the two lists of ids."""
    lines = [f"{queries[query]} 0 {items[item]} 1\n" for query, item in pairs]
    path.write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Retrieved:
    """Results of Q queries, K each, best first.

    items: (Q, K) indices, -1 for none. scores, right: (Q, K) of them. ranks: (Q,) rank from 0 of the best right item, K
    or more where it is not among the results.
    """

    items: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    ranks: np.ndarray


def write_run(path: Path, queries: Sequence[str], items: Sequence[str], results: Retrieved, tag: str) -> None:
    """Write results so that the best right item of each query has the rank that the metrics count it at.

    Items that are right come after others of the same score. Equal scores are lowered to the next smaller numbers of 32
    bits, as trec_eval reads them.
    """
    lines = []
    for query, name in enumerate(queries):
        found, scores, right = results.items[query], results.scores[query], results.right[query]
        by_score = np.lexsort((right, -scores))
        listed = by_score[found[by_score] >= 0].tolist()
        wrong = [column for column in listed if not right[column]]
        own = [column for column in listed if right[column]]
        rank = int(results.ranks[query])
        if own and rank <= len(wrong):
            rest = [column for column in listed if column not in (*wrong[:rank], own[0])]
            order = [*wrong[:rank], own[0], *rest]
        else:  # others tie with it up to the end of the list, and beyond
            order = wrong
        last = np.float32(np.inf)
        for position, column in enumerate(order, start=1):
            last = min(np.float32(scores[column]), np.nextafter(last, np.float32(-np.inf)))
            lines.append(f"{name} Q0 {items[found[column]]} {position} {last:.9g} {tag}\n")
    path.write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Judged:
    """Queries of a run with their relevant items: the ranking, and whether it holds every relevant item."""

    ranking: Ranking
    complete: bool


def read_judged(run: Path, qrels: Path) -> Judged:
    """Ranks of the relevant items of each query that the qrels name; ties count against the model.

    A query that the run lacks has none of its items found. Items that are not found rank last of all.

    Raises:
        UserError: a line is not of the format, an item is there twice, or nothing is relevant.
    """
    relevant: dict[str, set[str]] = {}
    for number, (query, _, item, grade) in _rows(qrels, 4, "query 0 item relevance"):
        if not re.fullmatch(r"-?\d+", grade):
            raise UserError(f"{qrels}, line {number}: relevance {grade!r}, expected a whole number")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(item)
    if not relevant:
        raise UserError(f"{qrels}: nothing is relevant")
    scores: dict[str, dict[str, float]] = {}
    for number, (query, _, item, _, score, _) in _rows(run, 6, "query Q0 item rank score tag"):
        of_query = scores.setdefault(query, {})
        if item in of_query:
            raise UserError(f"{run}, line {number}: {item} a second time for {query}")
        of_query[item] = _number(score, f"{run}, line {number}")
    if not scores.keys() & relevant.keys():
        raise UserError(f"{run}: none of the queries of {qrels}; the run has {next(iter(scores), 'none')}")
    items = {item for group in (*scores.values(), *relevant.values()) for item in group}
    ranks = [_ranks(scores.get(query, {}), wanted, len(items)) for query, wanted in relevant.items()]
    total = np.array([len(part) for part in ranks])
    ranking = Ranking(
        query=np.repeat(np.arange(len(total)), total),
        rank=np.concatenate(ranks),
        position=np.concatenate([np.arange(count) for count in total]),
        total=total,
        row=np.arange(len(total)),
        gallery=len(items),
    )
    return Judged(ranking, bool((ranking.rank < len(items)).all()))


def trec_metrics(judged: Judged) -> Metrics:
    """Recalls and the other metrics of one direction; of a run that was cut, those that read the first ten items."""
    recalls = summarise(judged.ranking.first)
    if judged.complete:
        metrics = recalls | binary_metrics(judged.ranking)
    else:
        metrics = {f"r{k}": recalls[f"r{k}"] for k in RECALL_AT} | binary_metrics(judged.ranking, CUT)
    return {**metrics, "queries": len(judged.ranking.total), "items": judged.ranking.gallery}


def _ranks(scores: dict[str, float], wanted: set[str], last: int) -> np.ndarray:
    """Ranks of a query's relevant items, ascending; ``last`` for what is not there."""
    wrong = np.sort([score for item, score in scores.items() if item not in wanted])
    own = np.sort([scores[item] for item in wanted & scores.keys()])[::-1]
    ranks = np.arange(len(own)) + len(wrong) - np.searchsorted(wrong, own)
    return np.concatenate([ranks, np.full(len(wanted) - len(own), last)]).astype(np.int64)


def _rows(path: Path, columns: int, layout: str) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip():
            row = line.split()
            if len(row) != columns:
                raise UserError(f"{path}, line {number}: {len(row)} columns, expected {columns}: {layout}")
            yield number, row


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UserError(f"{name}: score {text!r}, expected a number")
    return value
