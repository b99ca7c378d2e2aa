"""Stage detector: fit the region detector on the dataset's boxes, or obtain a published network."""

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.files.checked_json import read_json, write_json
from crossmodal.paths import DATASET, DETECTOR
from crossmodal.published.dual_encoder import obtain_half
from crossmodal.regions.bottomup.obtain import obtain_detector
from crossmodal.regions.fitted.fit import fit_detector
from crossmodal.regions.grid import obtain_backbone
from crossmodal.runtime import project_root
from crossmodal.settings.derived import region_backend
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    params = load_params()
    backend = region_backend(params)
    sections = {"grid": params.grid, "clip": params.clip, "bottomup": params.bottomup, "detectron2": params.bottomup}
    settings = sections.get(backend, params.detector)
    dataset = read_dataset(DATASET)
    work = work_folder("detector", {backend: settings.model_dump()}, [DATASET / "manifest.json"])
    out, state = work / "out", work / "state"
    out.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if backend == "grid":
        obtain_backbone(params.grid, out)
    elif backend == "precomputed":
        write_json(out / "config.json", {"backend": "precomputed"}, indent=None)  # nothing to obtain
    elif backend == "clip":
        obtain_half(params.clip.source, "vision", out)
    elif settings is params.bottomup:
        obtain_detector(params.bottomup, out, project_root() / ".resume" / "downloads")
    else:
        fit_detector(dataset, params.detector, out, state)
    publish(out, DETECTOR, work)
    measured = DETECTOR / "metrics.json"
    ap50 = read_json(measured, dict, nan=True).get("ap50") if measured.is_file() else None
    quality = "" if ap50 is None else f", AP50 {ap50:.3f} on val"  # None: no boxes in val
    network = "no network, features are precomputed" if backend == "precomputed" else f"{backend} network"
    print(f"detector: {network}{quality}, in {DETECTOR}")


if __name__ == "__main__":
    main()
