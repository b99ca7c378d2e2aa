"""Stage download: the dataset that params.yaml names, rendered or from its archives, checked, in one form."""

import shutil

from crossmodal.datasets.build import archives_of, build_dataset, drop_archives
from crossmodal.datasets.records import SPLITS, Dataset, read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.paths import DATASET
from crossmodal.runtime import in_units
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


def summary(dataset: Dataset) -> str:
    """Images and captions of each split, what was skipped, and what is there twice."""
    parts = []
    for split in SPLITS:
        if rows := dataset.rows(split):
            captions = sum(len(dataset.records[row].captions) for row in rows)
            parts.append(f"{split} {len(rows):,} images, {captions:,} captions")
    skipped = f"; {len(dataset.skipped)} items skipped, see manifest.json" if dataset.skipped else ""
    twice = f"; the same picture more than once: {len(dataset.duplicates)}" if dataset.duplicates else ""
    return f"download: {dataset.name}: {'; '.join(parts)}{skipped}{twice}, in {dataset.folder}"


@exits_cleanly
def main() -> None:
    params = load_params()
    settings = {params.dataset: getattr(params, params.dataset).model_dump(), "mirror": params.download.mirror}
    work = work_folder("download", settings)
    out = work / "out"
    if not archives_of(params.dataset):  # what a killed run unpacked is compared with the archives, and stays
        shutil.rmtree(out, ignore_errors=True)
    build_dataset(out, params)
    publish(out, DATASET, work)
    print(summary(read_dataset(DATASET)))
    if not params.download.keep_archives:
        print(f"download: removed {in_units(drop_archives(params.dataset))} of downloads (download.keep_archives)")


if __name__ == "__main__":
    main()
