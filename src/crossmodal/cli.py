"""``crossmodal``: the tools that are not stages of the pipeline.

A subcommand is a module of crossmodal.commands, by its name: ``add`` adds its arguments, ``run`` does the work and
imports what it needs, so that ``--help`` stays quick. COMMANDS names them; nothing else is needed for another one.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from typing import NoReturn

from crossmodal.errors import exits_cleanly
from crossmodal.terminal import printable_lines

COMMANDS = {
    "doctor": "what is here, what is missing, what to type next",
    "import-checkpoint": "make a matcher folder of a checkpoint that was published",
    "search": "find photographs for a sentence, or captions for a photograph",
    "serve": "search in a browser, and by programs, over HTTP",
    "embed": "make a searchable gallery of a folder of photographs",
    "index": "compare FAISS indexes by recall, speed and size",
    "register": "put the last evaluated model into MLflow's model registry",
    "score": "print every metric of a similarity matrix, embeddings or a TREC run",
    "probe": "score a compositional test: Winoground, SugarCrepe, ARO, VALSE",
    "compare": "tell whether two runs really differ",
    "gate": "fail where figures are worse than another commit's",
    "plots": "show how the curves differ from another commit's",
    "export": "write region features or results as other projects read them",
    "recipe": "print the settings that make a published result",
    "reproduce": "make a published result and compare",
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints show the control characters of arguments, which may be names of files."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))


def parser() -> argparse.ArgumentParser:
    """The parser of the command line: every command with its arguments."""
    whole = Parser(prog="crossmodal", description="Tools for image-text retrieval that are not stages of the pipeline.")
    subparsers = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = import_module(f"crossmodal.commands.{name.replace('-', '_')}")
        own = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        own.set_defaults(refuse=own.error, run=command.run)
        command.add(own)
    return whole


def main() -> None:
    """Entry point of ``crossmodal``."""
    arguments, unknown = parser().parse_known_args()
    if unknown:
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with the command's usage, not that of all
    exits_cleanly(partial(arguments.run, arguments), resumes=False)()


if __name__ == "__main__":
    main()
