"""Stage detector: fit the region detector on the dataset's boxes, or obtain a published network."""

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.files.checked_json import read_json
from crossmodal.paths import DATASET, DETECTOR
from crossmodal.regions.fetch import fetch_network
from crossmodal.runtime import keep_large_blocks
from crossmodal.settings.derived import BACKENDS, region_backend, settings_in_use
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    keep_large_blocks()
    params = load_params()
    backend = region_backend(params)
    dataset = read_dataset(DATASET)
    work = work_folder("detector", settings_in_use(params)["detector"], [DATASET / "manifest.json"])
    out = work / "out"
    out.mkdir(exist_ok=True)
    fetch_network(params, dataset, out, work / "state")
    publish(out, DETECTOR, work)
    metrics = DETECTOR / "metrics.json"
    ap50 = read_json(metrics, dict, nan=True).get("ap50") if metrics.is_file() else None
    quality = "" if ap50 is None else f", AP50 {ap50:.3f} on val"  # None: no boxes in val
    network = "no network, features are precomputed" if BACKENDS[backend].imported else f"{backend} network"
    print(f"detector: {network}{quality}, in {DETECTOR}")


if __name__ == "__main__":
    main()
