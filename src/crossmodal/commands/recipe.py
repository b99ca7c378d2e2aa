"""``crossmodal recipe``: the settings that make a published result, as ``dvc exp run`` takes them."""

from __future__ import annotations

import argparse

from crossmodal.terminal import printable, printable_lines, warn


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print its settings; without a name: list all recipes")


def run(arguments: argparse.Namespace) -> None:
    """Print one line of ``-S key=value``, or the list.

    Further settings that the recipe needs, and how many test captions its encoders have read, go to stderr.
    """
    from crossmodal.recipes.recipes import read_reproduction
    from crossmodal.recipes.tables import listing

    reproduction = read_reproduction()
    if arguments.name is None:
        print(printable_lines(listing(reproduction)))
        return
    recipe = reproduction.recipe(arguments.name)
    print(printable(" ".join(f"-S {override}" for override in recipe.overrides())))
    if recipe.needs:
        needs = " ".join(f"-S {key}=..." for key in recipe.needs)
        warn(f"this recipe also needs {needs}")
    if recipe.overlap:
        warn(f"its encoders have read {recipe.overlap} captions of the test split: {recipe.overlap.read}")
