"""Stage regions: boxes, features, classes, attributes and scores of every image's regions."""

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.params import load_params
from crossmodal.regions.extract import extract_regions
from crossmodal.regions.load import load_extractor
from stages.paths import DATASET, DETECTOR, REGIONS


@exits_cleanly
def main() -> None:
    params = load_params()
    backend = params.region_backend
    dataset, extractor = read_dataset(DATASET), load_extractor(params, DETECTOR)
    inputs = [DATASET / "manifest.json", *sorted(DETECTOR.iterdir())]
    work = work_folder("regions", {"backend": backend, **params.regions.model_dump()}, inputs)
    out = work / "out"
    extract_regions(dataset, extractor, out, batch_size=params.regions.batch_size, backend=backend)
    publish(out, REGIONS, work)
    lengths = FeatureStore(REGIONS).lengths
    print(f"regions: {lengths.sum():,} regions of {len(lengths):,} images ({backend}) in {REGIONS}")


if __name__ == "__main__":
    main()
