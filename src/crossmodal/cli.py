"""``crossmodal``: the tools that are not stages of the pipeline.

A subcommand is two functions side by side: one adds its arguments, the other does the work and imports what it
needs, so that ``--help`` stays quick. COMMANDS names them; nothing else is needed for another one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crossmodal.commands import compare, doctor, embed, export, index, recipe, reproduce, score, search


@dataclass(frozen=True)
class Command:
    """A subcommand: one line for the list, ``add`` for its arguments, ``run`` for the work."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_import(parser: argparse.ArgumentParser) -> None:
    """Arguments of import-checkpoint."""
    parser.add_argument(
        "--from",
        dest="project",
        required=True,
        choices=["sgraf", "vse_infty", "tern", "teran"],
        help="project that saved it: Paranioar/SGRAF, woodfrog/vse_infty, mesnico/TERN or mesnico/TERAN",
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


def run_import(arguments: argparse.Namespace) -> None:
    """Read a published checkpoint without running anything in it, and write a matcher folder.

    Raises:
        UserError: see models.import_checkpoint; the folder is already there.
    """
    from crossmodal.captions.vocabulary import SPECIAL, Vocabulary
    from crossmodal.errors import UserError
    from crossmodal.features.resume import content_key
    from crossmodal.models.checkpoint import save_matcher
    from crossmodal.models.import_checkpoint import import_checkpoint

    paths, out = arguments.checkpoints, arguments.out
    if out.exists():
        raise UserError(f"{out}: already there; move it away or name another folder")
    key = content_key({"import": arguments.project}, [path for path in paths if path.is_file()])
    imported = import_checkpoint(arguments.project, paths, arguments.vocabulary, key)
    model, config, words = imported.model, imported.config, imported.words
    if words and tuple(words[: len(SPECIAL)]) != SPECIAL:
        raise UserError(f"{arguments.vocabulary}: ids 0 to 3 are not {', '.join(SPECIAL)}")
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    save_matcher(part, model, config)
    if words:
        Vocabulary(words).save(part / "vocabulary.json")
    part.rename(out)
    text = {"bert": "stored BERT features", "bert_finetune": "its own BERT", "bigru": f"{len(words or ())} words"}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"import-checkpoint: {config.model} ({parameters:,} parameters), region features of {config.sizes.regions}, "
        f"captions by {text[config.encoder]} (captions.encoder {config.encoder}), in {out}"
    )


COMMANDS = {
    "doctor": Command("what is here, what is missing, what to type next", doctor.add, doctor.run),
    "import-checkpoint": Command("make a matcher folder of a checkpoint that was published", add_import, run_import),
    "search": Command("find photographs for a sentence or captions for one", search.add, search.run),
    "embed": Command("make a searchable gallery of a folder of photographs", embed.add, embed.run),
    "index": Command("compare FAISS indexes by recall, speed and size", index.add, index.run),
    "score": Command("print every metric of a similarity matrix", score.add, score.run),
    "compare": Command("tell whether two runs really differ", compare.add, compare.run),
    "export": Command("write region features as other projects read them", export.add, export.run),
    "recipe": Command("print the settings that make a published result", recipe.add, recipe.run),
    "reproduce": Command("make a published result and compare", reproduce.add, reproduce.run),
}


def main() -> None:
    """Entry point of ``crossmodal``."""
    parser = argparse.ArgumentParser(
        prog="crossmodal", description="Tools for image-text retrieval that are not stages of the pipeline."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add(subparsers.add_parser(name, help=command.help, description=f"{command.help.capitalize()}."))
    arguments = parser.parse_args()
    from crossmodal.errors import exits_cleanly  # behind --help: it waits for torch

    exits_cleanly(partial(COMMANDS[arguments.command].run, arguments))()


if __name__ == "__main__":
    main()
