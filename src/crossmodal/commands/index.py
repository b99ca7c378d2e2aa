"""``crossmodal index``: which FAISS index for how many embeddings, measured on this machine.

crossmodal index                                       # a million synthetic embeddings
crossmodal index --embeddings results/holiday/embeddings.npy
crossmodal index --kind Flat --kind HNSW32:efSearch=64 --kind IVF1024,SQ8:nprobe=32
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal.commands.arguments import positive


def add(parser: argparse.ArgumentParser) -> None:
    for name, default, purpose in (
        ("vectors", 1_000_000, "synthetic embeddings"),
        ("dim", 256, "of the synthetic embeddings"),
        ("queries", 1_000, "searched in one batch"),
        ("k", 10, "results of a query"),
    ):
        parser.add_argument(
            f"--{name}", type=positive, default=default, metavar="N", help=f"{purpose} (default: %(default)s)"
        )
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE.npy", help="your own, one row each, instead of synthetic ones"
    )
    parser.add_argument(
        "--kind",
        action="append",
        metavar="FACTORY[:SEARCH]",
        help="FAISS factory string and search settings; again for several (default: a choice that fits the vectors)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a row per index as soon as it is measured, then recommendations."""
    import faiss

    from crossmodal.retrieval.compare_indexes import (
        compare_indexes,
        read_embeddings,
        recommend,
        split_queries,
        synthetic_embeddings,
        usual_kinds,
    )
    from crossmodal.retrieval.index import IndexKind

    if arguments.embeddings is None:
        vectors = synthetic_embeddings(arguments.vectors, arguments.dim, seed=1)
        queries = synthetic_embeddings(arguments.queries, arguments.dim, seed=2)
    else:
        vectors, queries = split_queries(read_embeddings(arguments.embeddings), arguments.queries)
    typed = [text.partition(":") for text in arguments.kind or ()]
    kinds = [IndexKind(factory, search=search) for factory, _, search in typed]
    kinds = kinds or usual_kinds(*vectors.shape)
    gpus = f", {faiss.get_num_gpus()} GPUs" if faiss.get_num_gpus() else ""
    print(
        f"{len(vectors):,} embeddings of {vectors.shape[1]}, {len(queries):,} queries in one batch, "
        f"{faiss.omp_get_max_threads()} threads{gpus}, FAISS {faiss.__version__}"
    )
    print(f"| index | search | recall@{arguments.k} | queries/s | bytes per vector | build (s) |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    rows = []
    for row in compare_indexes(vectors, queries, kinds, arguments.k):
        measures = row.measures
        print(
            f"| {row.kind.factory} | {row.kind.search} | {measures.recall:.3f} | {measures.queries_per_second:,.0f} "
            f"| {measures.bytes_per_vector:,.0f} | {row.build_seconds:,.1f} |",
            flush=True,
        )
        rows.append(row)
    print()
    for line in recommend(rows):
        print(f"index: {line}")
