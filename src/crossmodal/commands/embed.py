"""``crossmodal embed``: a folder of photographs as a gallery that ``crossmodal search --in`` searches.

crossmodal embed holiday/ --out results/holiday
crossmodal search "two dogs running on grass" --in results/holiday
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from crossmodal.commands.arguments import add_matcher
from crossmodal.errors import UserError
from crossmodal.terminal import printable

NAMED = 20  # of what was passed over; all of it is in the manifest


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photographs, also in folders below it or linked")
    parser.add_argument("--out", type=Path, required=True, metavar="GALLERY", help="folder to make")
    add_matcher(parser)
    parser.add_argument("--index", default="Flat", help="FAISS factory string (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Detect regions, encode them with the trained matcher, index the vectors."""
    import shutil

    from crossmodal.serving.embed import embed_folder
    from crossmodal.serving.shared import open_matcher
    from crossmodal.settings.params import load_params

    folder, out = arguments.folder, arguments.out
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with photographs")
    if out.exists():
        raise UserError(f"{out}: already there; move it away or name another folder")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    vectors, info, left_out = embed_folder(
        folder, part, *open_matcher(arguments.matcher, load_params()), arguments.index
    )
    part.rename(out)
    for skipped in left_out[:NAMED]:
        print(printable(f"embed: skipped {skipped.item}: {skipped.reason}"))
    if left_out:
        more = f", {len(left_out) - NAMED:,} more than named here" if len(left_out) > NAMED else ""
        listed = printable(out / "dataset/manifest.json")
        print(f"embed: {len(left_out):,} files or folders skipped{more}; all are in {listed}")
    size = f"{vectors.shape[1]} dimensions"
    print(f"embed: {len(vectors):,} images by {info.model} ({size}), in {printable(out)}")
    option = f" --matcher {shlex.quote(arguments.matcher)}" if arguments.matcher else ""
    print(printable(f'embed: try crossmodal search "two dogs running on grass" --in {shlex.quote(str(out))}{option}'))
