"""Tasks given to this process or to a Ray cluster, and what is there of an earlier run.

What a run has finished when it is cut off lies next to the folder that it makes, and the next run goes on from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.regions.extraction.jobs import map_on_ray
from crossmodal.runtime import progress
from crossmodal.serving.embedding.former import STORES, TABLES
from crossmodal.serving.embedding.shards import DONE, IMAGES, Done, Recipe, ShardMaker, read_done
from crossmodal.serving.embedding.tasks import Task
from crossmodal.settings.features import RayCluster

FORMER = "former"  # in an unfinished folder: shards of what has changed since, to copy from


@dataclass(frozen=True)
class Made:
    """Names of the shards with rows, in order; photographs and those of them that were copied; what was left out."""

    shards: tuple[str, ...]
    rows: int
    known: int
    skipped: tuple[Skipped, ...]


class ShardActor:
    """A Ray actor that makes shards of some of ``tasks``; models are loaded once."""

    def __init__(self, home: Path, recipe: Recipe, tasks: Sequence[Task]) -> None:
        os.chdir(home)  # paths of models are relative to the repository
        self.maker, self.tasks = ShardMaker(recipe), tasks

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """``task`` (1,), its number -> ``error`` (1,), a UserError's message or nothing."""
        try:
            self.maker.make(self.tasks[int(batch["task"][0])])
        except UserError as error:
            return {"error": [str(error)]}
        return {"error": [""]}


def make_shards(
    tasks: Sequence[Task], recipe: Recipe, *, executor: Literal["local", "ray"], cluster: RayCluster
) -> Made:
    """Make all shards that are not done in ``recipe.out``, from which ``set_aside`` has moved what is of no use there.

    Raises:
        UserError: see ``ShardMaker.make``; Ray is not installed or has no cluster there. What is done is kept.
    """
    left = [task for task in tasks if not _finished(task, recipe.out)]
    if left and executor == "ray":
        items = [{"task": number} for number in range(len(left))]
        map_on_ray(ShardActor, (Path.cwd(), recipe, left), items, cluster, desc="embed on ray")
    elif left:
        maker = ShardMaker(recipe)
        for task in progress(left, desc="embed", unit="shard"):
            maker.make(task)
    done = {path.stem: read_done(recipe.out, path.stem) for path in sorted((recipe.out / DONE).glob("*.json"))}
    return Made(
        tuple(name for name, shard in done.items() if shard.rows),
        sum(shard.rows for shard in done.values()),
        sum(shard.known for shard in done.values()),
        tuple(Skipped(*item) for shard in done.values() for item in shard.skipped),
    )


def _shards_of(task: Task, out: Path) -> list[tuple[str, Done]]:
    names = [path.stem for path in sorted((out / DONE).glob(f"{task.name}*.json"))]
    return [(name, read_done(out, name)) for name in names]


def _finished(task: Task, out: Path) -> bool:
    """Whether all shards of a task are done, of the version that is there now."""
    done = _shards_of(task, out)
    return task.version is not None and bool(done) and done[-1][1].last


def set_aside(tasks: Sequence[Task], out: Path) -> tuple[Path, ...]:
    """Move shards of what has changed, or is gone, within ``out`` to a folder that rows are copied from.

    What a killed process was writing is removed.

    Returns:
        That folder, and those of earlier calls.
    """
    for path in [*out.glob(".tar-*"), *out.glob(".new-*")]:
        shutil.rmtree(path)
    for path in (out / TABLES).glob("*.part"):
        path.unlink()
    kept = set()
    for task in tasks:
        done = _shards_of(task, out)
        if task.version is not None and all(shard.version == task.version for _, shard in done):
            kept |= {name for name, _ in done}
            continue
        if task.folder:
            shutil.rmtree(out / IMAGES / task.folder, ignore_errors=True)
    folders = {task.folder for task in tasks}
    for path in (out / IMAGES).glob("*"):
        if path.name not in folders:
            shutil.rmtree(path)
    target = out / FORMER / f"{len(list((out / FORMER).glob('*'))):05d}"
    for path in sorted((out / TABLES).glob("*.parquet")):
        name = path.stem
        if name in kept:
            continue
        for source in (path, out / STORES / name):
            if source.exists():
                (target / source.parent.name).mkdir(parents=True, exist_ok=True)
                source.rename(target / source.parent.name / source.name)
    for path in (out / DONE).glob("*.json"):
        if path.stem not in kept:
            path.unlink()
    (out / DONE).mkdir(parents=True, exist_ok=True)
    return tuple(sorted((out / FORMER).glob("*")))
