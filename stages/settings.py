"""Stage settings: settings of the region backend, BERT and caption encoder in use, a file for each stage affected."""

from crossmodal.errors import exits_cleanly
from crossmodal.files.checked_json import write_json
from crossmodal.paths import SETTINGS
from crossmodal.settings.derived import bert_source, region_backend, settings_in_use
from crossmodal.settings.params import load_params


@exits_cleanly
def main() -> None:
    params = load_params()
    SETTINGS.mkdir(parents=True, exist_ok=True)
    for stage, settings in settings_in_use(params).items():
        write_json(SETTINGS / f"{stage}.json", settings)
    print(f"settings: regions by {region_backend(params)}, bert from {bert_source(params)}, in {SETTINGS}")


if __name__ == "__main__":
    main()
