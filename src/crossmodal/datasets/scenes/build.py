"""Entry point: render the dataset ``scenes`` into a folder."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from crossmodal.datasets.phrases import Phrase, write_phrases
from crossmodal.datasets.records import SPLITS, ImageRecord, write_dataset
from crossmodal.datasets.scenes.plan import groups_of
from crossmodal.datasets.scenes.render import render_group
from crossmodal.datasets.scenes.vocabulary import ATTRIBUTES, SHAPES
from crossmodal.runtime import progress
from crossmodal.settings.datasets import Scenes


def build_scenes(folder: Path, settings: Scenes, workers: int | None = None) -> None:
    """Render all images and write the dataset folder: the same bytes for the same settings.

    ``workers``: processes, on which the result does not depend; None: one per core.
    """
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    groups = groups_of(settings)
    total = settings.train + settings.val + settings.test + 2 * settings.probe
    made: list[tuple[ImageRecord, list[Phrase]]] = []
    with progress(total=total, desc="scenes", unit="image") as bar:
        for group in _rendered(partial(render_group, folder, settings), groups, workers or os.cpu_count() or 1):
            made += group
            bar.update(len(group))
    write_dataset(folder, "scenes", (record for record, _ in made), classes=SHAPES, attributes=ATTRIBUTES)
    write_phrases(folder, (phrase for _, phrases in made for phrase in phrases))


def _rendered(
    task: partial[list[tuple[ImageRecord, list[Phrase]]]], groups: Iterable[tuple[str, int]], workers: int
) -> Iterator[list[tuple[ImageRecord, list[Phrase]]]]:
    """The records and phrases of every group, in order, on ``workers`` processes."""
    splits, numbers = zip(*groups, strict=True)
    if workers == 1:
        yield from map(task, splits, numbers)
        return
    # A forked worker has everything imported; a spawned one, where there is no fork, imports no torch.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(task, splits, numbers, chunksize=8)
