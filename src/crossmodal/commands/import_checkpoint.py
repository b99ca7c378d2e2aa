"""``crossmodal import-checkpoint``: a published file becomes a matcher folder (docs/published-checkpoints.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal.errors import UserError
from crossmodal.terminal import printable


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="project",
        required=True,
        choices=["sgraf", "vse_infty", "esa", "xdim", "chan", "imram", "tern", "teran"],
        help="project that saved it, as docs/published-checkpoints.md lists them",
    )
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="FILE.pth",
        help="what the project's train.py saved; an SGR and a SAF together make an SGRAF",
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="VOCAB", help="its vocabulary, .json or .pkl; not for models with BERT"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="matcher folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Read a published checkpoint without running anything in it, and write a matcher folder."""
    import shutil

    from crossmodal.captions.vocabulary import SPECIAL, Vocabulary
    from crossmodal.models.checkpoint import save_matcher
    from crossmodal.published.checkpoints import import_checkpoint
    from crossmodal.workspace import content_key

    paths, out = arguments.checkpoints, arguments.out
    if out.exists():
        raise UserError(f"{out}: already there; move it away or name another folder")
    key = content_key({"import": arguments.project}, [path for path in paths if path.is_file()])
    imported = import_checkpoint(arguments.project, paths, arguments.vocabulary, key)
    model, config, words = imported.model, imported.config, imported.words
    if words and tuple(words[: len(SPECIAL)]) != SPECIAL:
        raise UserError(f"{arguments.vocabulary}: ids 0 to 3 are not {', '.join(SPECIAL)}")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an import that was cut off
    part.mkdir(parents=True)
    save_matcher(part, model, config)
    if words:
        Vocabulary(words).save(part / "vocabulary.json")
    part.rename(out)
    vocabulary = f", a vocabulary of {len(words)} words" if words else ""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"import-checkpoint: {config.model} ({parameters:,} parameters), region features of {config.sizes.regions}, "
        f"captions.encoder {config.encoder}{vocabulary}, in {printable(out)}"
    )
