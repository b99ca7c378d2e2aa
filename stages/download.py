"""Stage download: the dataset that params.yaml names, into data/dataset.

python -m stages.download
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from crossmodal.datasets.build import build_dataset
from crossmodal.datasets.records import SPLITS, Dataset, read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.params import load_params
from crossmodal.runtime import project_root
from stages.paths import DATASET


@exits_cleanly
def main() -> None:
    params = load_params()
    # One folder per workspace: queued experiments run side by side and share the project's root.
    workspace = hashlib.sha256(str(Path.cwd()).encode()).hexdigest()[:12]
    building = project_root() / ".resume" / "download" / workspace
    for old in (DATASET, building):
        if old.exists():
            shutil.rmtree(old)
    try:
        build_dataset(building, params)
        DATASET.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(building, DATASET)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(summary(read_dataset(DATASET)))


def summary(dataset: Dataset) -> str:
    """What was written where: images and captions of each split, skipped items."""
    parts = []
    for split in SPLITS:
        if rows := dataset.rows(split):
            captions = sum(len(dataset.records[row].captions) for row in rows)
            parts.append(f"{split} {len(rows):,} images, {captions:,} captions")
    skipped = f"{len(dataset.skipped)} items skipped" + (", see manifest.json" if dataset.skipped else "")
    return f"{dataset.folder}: {dataset.name}: {'; '.join(parts)}\n{skipped}"


if __name__ == "__main__":
    main()
