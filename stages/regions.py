"""Stage regions: boxes, features, classes, attributes and scores of every image's regions.

Several workers can share the extraction before ``dvc repro regions`` puts it together (docs/region-features.md):

    python -m stages.regions --shard 0/8        # worker 0 of 8, outside DVC
"""

import argparse
from functools import partial

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.features.store import FeatureStore
from crossmodal.paths import DATASET, DETECTOR, REGIONS
from crossmodal.regions.backends import load_extractor
from crossmodal.regions.extraction.extract import Extraction
from crossmodal.regions.extraction.jobs import extract_all, extract_shard
from crossmodal.regions.precomputed.importing import fingerprint, import_regions
from crossmodal.runtime import keep_large_blocks
from crossmodal.settings.derived import BACKENDS, region_backend, settings_in_use
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shard", metavar="I/N", help="extract what worker I of N has to, and publish nothing")
    shard = parser.parse_args().shard
    keep_large_blocks()
    params = load_params()
    backend, dataset = region_backend(params), read_dataset(DATASET)
    imported = BACKENDS[backend].imported
    if not DETECTOR.is_dir():
        raise UserError(f"{DETECTOR}: not found; run the detector stage first")
    if shard and imported:
        raise UserError(f"--shard: regions.backend {backend} is imported by one process: dvc repro regions")
    key = settings_in_use(params)["regions"]
    if imported:
        key |= {"files": fingerprint(params.precomputed)}
    inputs = [DATASET / "manifest.json", *sorted(DETECTOR.iterdir())]
    work = work_folder("regions", key, inputs, shared=shard is not None)
    how, make_extractor = Extraction.of(params), partial(load_extractor, params, DETECTOR)
    if shard is not None:
        print(f"regions: {extract_shard(dataset, make_extractor, work, shard, how)}")
        return
    if imported:
        out = import_regions(dataset, params.precomputed, work / "out")
    else:
        executor = params.regions.executor
        out = extract_all(dataset, make_extractor, work, how, executor=executor, cluster=params.ray)
    publish(out, REGIONS, work)
    store = FeatureStore(REGIONS)
    images, left_out = len(store), len(store.left_out)
    regions = store.lengths.sum() - left_out
    note = f"; {left_out} images left out, see index.json" if left_out else ""
    print(f"regions: {regions:,} regions of {images - left_out:,} images ({backend}) in {REGIONS}{note}")


if __name__ == "__main__":
    main()
