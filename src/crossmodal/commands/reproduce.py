"""``crossmodal reproduce``: run a recipe and check that it gives the published metrics."""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from crossmodal.commands.arguments import add_overrides
from crossmodal.errors import UserError
from crossmodal.terminal import printable, printable_lines

if TYPE_CHECKING:
    from crossmodal.recipes.recipes import Protocol, Recalls, Recipe

DIFFERS = 1  # exit code
CODE = ("src", "stages", "dvc.yaml")  # what a metric depends on besides settings


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="recipe to run; `crossmodal recipe` lists them")
    what.add_argument("--table", action="store_true", help="run nothing, print the Markdown table of all recipes")
    add_overrides(parser, "a further setting, over the recipe's, such as the path of a file or train.workers")


def run(arguments: argparse.Namespace) -> None:
    """Run the pipeline with a recipe and compare its metrics with the published ones.

    Exits with 1 where rsum is below the published one by more than the tolerance, or where R@1 and R@5 alone are
    published, their sum.
    """
    from crossmodal.recipes.recipes import read_recalls, read_reproduction
    from crossmodal.recipes.tables import markdown
    from crossmodal.revisions.files import changed_since

    reproduction = read_reproduction()
    if arguments.table:
        print(printable_lines(markdown(reproduction)))
        return
    recipe = reproduction.recipe(arguments.name)
    overrides = [*recipe.overrides(), *arguments.overrides]
    _check(arguments.name, recipe, overrides)
    changed = changed_since("HEAD", *CODE)
    started = time.monotonic()
    _run_pipeline(overrides)
    minutes = (time.monotonic() - started) / 60

    recalls = read_recalls(recipe.dataset)
    good = _compare(arguments.name, recipe, recalls, reproduction.tolerance)
    if recipe.note:
        print(f"note: {printable(recipe.note)}")
    keys = {_key(override) for override in recipe.overrides()}
    for override in arguments.overrides:
        if _key(override) in keys:
            print(f"note: {printable(override)} replaces the recipe's")
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        print(f"note: not as committed: {printable(changed[0])}{more}; the commit below is not the code that ran")
    print("\nFor reproduction.yaml, with the minutes of training where stages came from the cache:\n")
    print(_record(recalls, minutes))
    if not good:
        sys.exit(DIFFERS)


def _compare(name: str, recipe: Recipe, recalls: dict[Protocol, Recalls], tolerance: float) -> bool:
    """Print the metrics and those expected; return whether every rsum is at most ``tolerance`` below."""
    from crossmodal.recipes.recipes import read_pointing, total
    from crossmodal.recipes.tables import comparison

    good = True
    label = "published" if recipe.published else "recorded"
    for protocol, expected in recipe.expected.items():
        print(f"\n{printable(name)}, {'mean of five folds' if protocol == 'folds' else 'all test images'}")
        ranks = len(expected.i2t)
        what, wanted = "rsum" if ranks == 3 else "the sum of R@1 and R@5", total(expected, ranks)
        if protocol not in recalls:
            print(f"no: metrics/test.json has no metrics of folds to compare with {label} {what} {wanted:.1f}")
            good = False
            continue
        print(comparison(expected, recalls[protocol], label))
        difference = total(recalls[protocol], ranks) - wanted
        reproduced = difference >= -tolerance
        good = good and reproduced
        side = "above" if difference >= 0 else "below"
        print(
            f"{'OK' if reproduced else 'no'}: {what} is {abs(difference):.1f} {side} "
            f"the {label} {wanted:.1f}, tolerance {tolerance:.1f}"
        )
    if recipe.pointing is not None:
        found, wanted = read_pointing(), recipe.pointing.centre
        reproduced = found is not None and found >= wanted - tolerance
        good = good and reproduced
        measured = "was not measured" if found is None else f"is {found:.2f}"
        print(f"{'OK' if reproduced else 'no'}: pointing accuracy {measured}, published {wanted:.2f}")
    return good


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _check(name: str, recipe: Recipe, overrides: list[str]) -> None:
    """Raise if the run would not be the recipe: a needed setting is missing, or params.yaml has other changes."""
    from crossmodal.files.checked_yaml import dotted
    from crossmodal.recipes.recipes import FILE, PARAMS, resolved
    from crossmodal.revisions.files import file_at
    from crossmodal.settings.derived import run_settings
    from crossmodal.settings.params import load_params

    given = {_key(override) for override in overrides}
    missing = [key for key in recipe.needs if key not in given]
    if missing:
        raise UserError(f"{FILE}: {name} needs {' '.join(f'-S {key}=...' for key in missing)}")
    load_params(PARAMS)
    text = file_at("HEAD", PARAMS)
    if text is None:
        raise UserError(f"{PARAMS}: git has no committed one to compare with; run from the root of the repository")
    here = dotted(run_settings(resolved(PARAMS.read_text(encoding="utf-8"), overrides)))
    committed = dotted(run_settings(resolved(text, overrides, f"committed {PARAMS}")))
    for key in sorted(here.keys() | committed.keys()):
        if here.get(key) != committed.get(key):
            raise UserError(
                f"{PARAMS}: {key} is {here.get(key)}, committed is {committed.get(key)}, and {name} does not set it; "
                f"git restore {PARAMS}, or say which: -S {key}=..."
            )


def _run_pipeline(overrides: list[str]) -> None:
    settings = [part for override in overrides for part in ("-S", override)]
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "dvc", "exp", "run", *settings], check=False).returncode
    if code:
        raise UserError(f"dvc exp run ended with exit code {code}; what it says is above")


def _record(recalls: dict[Protocol, Recalls], minutes: float) -> str:
    """The run as the recipe's ``ours``."""
    import torch
    import yaml

    from crossmodal.revisions.files import base_revision

    rows = {name: {"i2t": list(some.i2t), "t2i": list(some.t2i), "rsum": some.rsum} for name, some in recalls.items()}
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    ours = {
        "figures": rows,
        "commit": base_revision("HEAD")[1][:7],
        "date": datetime.date.today(),
        "machine": f"{os.cpu_count()} CPU cores{gpu}",
        "minutes": max(1, round(minutes)),
    }
    return yaml.safe_dump({"ours": ours}, sort_keys=False, default_flow_style=None, width=120).rstrip()
