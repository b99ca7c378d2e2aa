"""``crossmodal doctor``: what the chosen settings need, what of it is here, and the command to type next."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crossmodal.commands.arguments import add_overrides
from crossmodal.terminal import printable

if TYPE_CHECKING:
    from crossmodal.settings.params import Params

MARKS = {"ok": "ok", "part": "part", "get": "to do", "fix": "FIX", "?": "?", "": ""}


def add(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "look at other settings than those of params.yaml, as dvc exp run -S does")
    parser.add_argument(
        "--cache", action="store_true", help="compare every file of DVC's cache with its checksum: reads all of it"
    )
    parser.add_argument(
        "--timeout", type=float, default=3.0, metavar="SECONDS", help="for each address that is asked (default: 3)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the report; exit code 1 if something has to be fixed first, 0 if the next command is expected to work."""
    from crossmodal.doctor import checks, dvc_checks, project
    from crossmodal.settings.derived import bert_source, region_backend

    params = _params(arguments.overrides)
    offline = " (offline)" if params.download.offline else ""
    print(
        f"params.yaml: dataset {params.dataset}{offline}, model {params.model}, regions {region_backend(params)}, "
        f"captions {params.captions.encoder} ({bert_source(params)})"
    )
    sections = {
        "machine": checks.check_machine(params),
        "dataset": checks.check_dataset(params, arguments.timeout),
        "files": checks.check_files(params, arguments.timeout),
        "weights": [] if params.download.offline else checks.check_hub(params, arguments.timeout),
        "stages": project.check_project(experiment=bool(arguments.overrides))
        or ([] if arguments.overrides else dvc_checks.check_stages()),
        "cache": dvc_checks.check_cache() if arguments.cache else [],
    }
    for title, findings in sections.items():
        if findings:
            print(f"\n{title}")
        width = max((len(printable(finding.what)) for finding in findings), default=0)
        for finding in findings:
            print(f"  {MARKS[finding.state]:<6}{printable(finding.what):<{width}}  {printable(finding.text)}")
    to_fix = [finding for findings in sections.values() for finding in findings if finding.state == "fix"]
    if to_fix:
        print("\nto fix")
    for finding in to_fix:
        print(f"  {printable(finding.what)}: {printable(finding.fix)}")
    print(f"\nnext: {printable(_next(arguments.overrides, sections['stages'], blocked=bool(to_fix)))}")
    if to_fix:
        sys.exit(1)


def _params(overrides: list[str]) -> Params:
    from crossmodal.files.checked_yaml import read_yaml
    from crossmodal.recipes.recipes import PARAMS, resolved
    from crossmodal.settings.params import load_params

    if not overrides:
        return load_params(PARAMS)
    read_yaml(PARAMS)  # if it is missing or no YAML, that comes first
    return resolved(PARAMS.read_text(encoding="utf-8"), overrides)


def _next(overrides: list[str], stages: list, *, blocked: bool) -> str:
    """The command to type."""
    from crossmodal.doctor.project import path_prefix

    settings = "".join(f" -S {shlex.quote(override)}" for override in overrides)
    if blocked:
        return f"do what is said above, then: crossmodal doctor{settings}"
    dvc = f"{path_prefix()}dvc"
    if overrides:
        return f"{dvc} exp run{settings}"
    if not Path("dvc.yaml").is_file():
        return "go to the root of the repository (no dvc.yaml here)"
    if stages and all(stage.state == "ok" for stage in stages):
        return f"{dvc} metrics show  # everything is up to date"
    return f"{dvc} repro"
