"""Stage detector: fit the region detector on the dataset's boxes, or obtain a backbone for grid features."""

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.params import load_params
from crossmodal.regions.fit import fit_detector
from crossmodal.regions.grid import obtain_backbone
from stages.paths import DATASET, DETECTOR


@exits_cleanly
def main() -> None:
    params = load_params()
    backend = params.region_backend
    settings = params.grid if backend == "grid" else params.detector
    work = work_folder("detector", {backend: settings.model_dump()}, [DATASET / "manifest.json"])
    out, state = work / "out", work / "state"
    out.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if backend == "grid":
        obtain_backbone(params.grid, out)
    else:
        fit_detector(read_dataset(DATASET), params.detector, out, state)
    publish(out, DETECTOR, work)
    print(f"detector: {backend} network in {DETECTOR}")


if __name__ == "__main__":
    main()
