"""Checks of ``crossmodal doctor`` that ask DVC: its stages, and the files of its cache."""

from __future__ import annotations

import os
from pathlib import Path

from crossmodal.doctor.findings import Finding, never_raises
from crossmodal.files.checksums import file_checksum
from crossmodal.runtime import in_units, progress


@never_raises
def check_stages() -> list[Finding]:
    """Every stage of dvc.yaml by DVC's status: up to date, or the reason to run it."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo(".")
    except NotDvcRepoError:  # a copy without hidden files
        init = "dvc init" if Path(".git").exists() else "dvc init --no-scm"
        return [Finding("fix", "DVC", "no .dvc folder here", init)]
    with repo:
        changed = repo.status()
        stages = [stage for stage in repo.index.stages if hasattr(stage, "name")]  # not those of .dvc files
        outs = {stage.name: [Path(out.fs_path) for out in stage.outs] for stage in stages}
    return [_stage(name, paths, changed.get(name, [])) for name, paths in outs.items()]


def _stage(name: str, outs: list[Path], problems: list) -> Finding:
    size = sum(_size(path) for path in outs)
    if not problems:
        return Finding("ok", name, f"up to date, {in_units(size)}")
    if not any(path.exists() for path in outs):
        return Finding("get", name, "has not run here")
    reasons = []
    for problem in problems:
        entries = problem.items() if isinstance(problem, dict) else [(problem, {})]
        for kind, items in entries:
            reasons.append(f"{kind}: {', '.join(items)}" if items else str(kind))
    return Finding("get", name, f"would run: {'; '.join(reasons)}; {in_units(size)} of a former run")


@never_raises
def check_cache() -> list[Finding]:
    """Files of DVC's cache whose content does not have the checksum in their names.

    DVC itself trusts a write-protected file: one that is damaged would be copied to the outs.
    """
    from dvc.repo import Repo

    with Repo(".") as repo:
        folder = Path(repo.cache.local.path)
        outs = {
            out.hash_info.value: stage.addressing
            for stage in repo.index.stages
            for out in stage.outs
            if out.hash_info.value  # else it has not run
        }
    files = [path for path in sorted(folder.glob("??/*")) if path.is_file()]
    damaged = [path for path in progress(files, desc="cache", unit="file") if not _is_whole(path)]
    findings = [
        Finding("fix", os.path.relpath(path), "differs from its checksum", _again(path, outs)) for path in damaged
    ]
    total = in_units(sum(path.stat().st_size for path in files))
    return findings or [Finding("ok", "cache", f"{len(files):,} files, {total}, all with their checksums")]


def _is_whole(path: Path) -> bool:
    return file_checksum(path, "md5") == path.parent.name + path.name.removesuffix(".dir")


def _again(path: Path, outs: dict[str, str]) -> str:
    """Command that deletes a damaged object and runs the stage that writes its out."""
    digest = path.parent.name + path.name
    for out, stage in outs.items():
        listing = path.parent.parent / out[:2] / out[2:]
        if digest == out or (
            out.endswith(".dir") and listing.is_file() and digest in listing.read_text(errors="replace")
        ):
            return f"rm -f {os.path.relpath(path)} && dvc repro --force --single-item {stage}"
    return f"rm -f {os.path.relpath(path)} (of a former run)"


def _size(path: Path) -> int:
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)
