"""Stage regions: boxes, features, classes, attributes and scores of every image's regions."""

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.params import Params, load_params
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.clip_backend import ClipRegions
from crossmodal.regions.detectron2_backend import Detectron2Regions
from crossmodal.regions.extract import extract_regions
from crossmodal.regions.grid import GridExtractor
from crossmodal.regions.torchvision_backend import TorchvisionRegions
from stages.paths import DATASET, DETECTOR, REGIONS


def load_extractor(params: Params) -> RegionExtractor:
    """The network of models/detector as the chosen backend runs it."""
    if params.region_backend == "grid":
        return GridExtractor(DETECTOR)
    if params.region_backend == "clip":
        return ClipRegions(DETECTOR)
    if params.region_backend == "bottomup":
        return BottomUpRegions(DETECTOR, params.bottomup, params.regions.precision)
    if params.region_backend == "detectron2":
        return Detectron2Regions(DETECTOR, params.bottomup, params.regions.precision)
    return TorchvisionRegions(DETECTOR, params.regions)


@exits_cleanly
def main() -> None:
    params = load_params()
    backend = params.region_backend
    dataset, extractor = read_dataset(DATASET), load_extractor(params)
    inputs = [DATASET / "manifest.json", *sorted(DETECTOR.iterdir())]
    settings = {"backend": backend, **params.regions.model_dump(), "bottomup": params.bottomup.model_dump()}
    work = work_folder("regions", settings, inputs)
    out = work / "out"
    extract_regions(dataset, extractor, out, batch_size=params.regions.batch_size, backend=backend)
    publish(out, REGIONS, work)
    lengths = FeatureStore(REGIONS).lengths
    print(f"regions: {lengths.sum():,} regions of {len(lengths):,} images ({backend}) in {REGIONS}")


if __name__ == "__main__":
    main()
