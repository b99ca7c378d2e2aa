"""``crossmodal embed``: photographs as a gallery that ``crossmodal search --in`` searches, or as shards of vectors.

crossmodal embed holiday/ --out results/holiday
crossmodal search "two dogs running on grass" --in results/holiday
crossmodal embed 's3://bucket/data-{000000..000012}.tar' --out results/vectors --format parquet --executor ray

Once more with the same --out, it computes what is new and drops what is gone.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from crossmodal.commands.arguments import add_matcher
from crossmodal.errors import UserError
from crossmodal.terminal import printable

NAMED = 20  # of what was passed over; all of it is in a file


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="PHOTOGRAPHS",
        help="a folder, with folders below it or linked; or webdataset tars: a file, a glob, x-{000..012}.tar, s3://...",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="GALLERY", help="folder to make or bring up to date")
    add_matcher(parser)
    parser.add_argument("--index", help="FAISS factory string of a gallery (default: Flat)")
    parser.add_argument(
        "--format",
        choices=["gallery", "parquet", "lance"],
        default="gallery",
        help="parquet: only vectors, or sets of them, with boxes, for vector databases; lance: a LanceDB table of them "
        "too (%(default)s)",
    )
    parser.add_argument("--executor", choices=["local", "ray"], help="who computes (regions.executor)")


def run(arguments: argparse.Namespace) -> None:
    """Detect regions, encode them with the trained matcher, index the vectors."""
    from crossmodal.serving.embed import embed
    from crossmodal.serving.shared import open_matcher
    from crossmodal.settings.params import load_params

    out = arguments.out
    if arguments.index is not None and arguments.format != "gallery":
        raise UserError(f"--index: not with --format {arguments.format}, which has no index")
    params, folders = open_matcher(arguments.matcher, load_params())
    done = embed(
        arguments.source,
        out,
        params,
        folders,
        factory="Flat" if arguments.index is None else arguments.index,
        form=arguments.format,
        executor=arguments.executor or params.regions.executor,
    )
    for skipped in done.skipped[:NAMED]:
        print(printable(f"embed: skipped {skipped.item}: {skipped.reason}"))
    if done.skipped:
        more = f", {len(done.skipped) - NAMED:,} more than named here" if len(done.skipped) > NAMED else ""
        print(
            f"embed: {len(done.skipped):,} files or folders skipped{more}; all are in {printable(out / done.listing)}"
        )
    known = f", {done.known:,} of them known before" if done.known else ""
    print(f"embed: {done.images:,} images by {done.model} ({done.size} dimensions){known}, in {printable(out)}")
    if arguments.format == "gallery":
        option = f" --matcher {shlex.quote(arguments.matcher)}" if arguments.matcher else ""
        search = f'crossmodal search "two dogs running on grass" --in {shlex.quote(str(out))}{option}'
        print(printable(f"embed: try {search}"))
