"""``crossmodal``: the tools that are not stages of the pipeline.

A subcommand is a module of crossmodal.commands, by its name: ``add`` adds its arguments, ``run`` does the work and
imports what it needs, so that ``--help`` stays quick. COMMANDS names them; nothing else is needed for another one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from crossmodal.commands import (
    compare,
    doctor,
    embed,
    export,
    gate,
    import_checkpoint,
    index,
    plots,
    probe,
    recipe,
    register,
    reproduce,
    score,
    search,
)
from crossmodal.terminal import printable_lines


@dataclass(frozen=True)
class Command:
    """A subcommand: one line for the list, ``add`` for its arguments, ``run`` for the work."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


COMMANDS = {
    "doctor": Command("what is here, what is missing, what to type next", doctor.add, doctor.run),
    "import-checkpoint": Command(
        "make a matcher folder of a checkpoint that was published", import_checkpoint.add, import_checkpoint.run
    ),
    "search": Command("find photographs for a sentence, or captions for a photograph", search.add, search.run),
    "embed": Command("make a searchable gallery of a folder of photographs", embed.add, embed.run),
    "index": Command("compare FAISS indexes by recall, speed and size", index.add, index.run),
    "register": Command("put the last evaluated model into MLflow's model registry", register.add, register.run),
    "score": Command("print every metric of a similarity matrix, embeddings or a TREC run", score.add, score.run),
    "probe": Command("score a compositional test: Winoground, SugarCrepe, ARO, VALSE", probe.add, probe.run),
    "compare": Command("tell whether two runs really differ", compare.add, compare.run),
    "gate": Command("fail where figures are worse than another commit's", gate.add, gate.run),
    "plots": Command("show how the curves differ from another commit's", plots.add, plots.run),
    "export": Command("write region features or results as other projects read them", export.add, export.run),
    "recipe": Command("print the settings that make a published result", recipe.add, recipe.run),
    "reproduce": Command("make a published result and compare", reproduce.add, reproduce.run),
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints show the control characters of arguments, which may be names of files."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))


def parser() -> argparse.ArgumentParser:
    """The parser of the command line: every command with its arguments."""
    whole = Parser(prog="crossmodal", description="Tools for image-text retrieval that are not stages of the pipeline.")
    subparsers = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        own = subparsers.add_parser(name, help=command.help, description=description)
        own.set_defaults(refuse=own.error)
        command.add(own)
    return whole


def main() -> None:
    """Entry point of ``crossmodal``."""
    arguments, unknown = parser().parse_known_args()
    if unknown:
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with the command's usage, not that of all
    from crossmodal.errors import exits_cleanly  # not for --help: it imports torch

    exits_cleanly(partial(COMMANDS[arguments.command].run, arguments), resumes=False)()


if __name__ == "__main__":
    main()
