"""dvc.yaml declares what the stages really read: source files, parameters, outs."""

from pathlib import Path

import grimp
import pytest
import yaml
from pydantic import BaseModel

from crossmodal.settings.derived import BACKENDS, settings_in_use
from crossmodal.settings.params import Params, load_params
from stages import train

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SECTIONS = ("datasets", "evaluation", "features", "models", "training", "values")  # of params.yaml, as types
# Cannot change a result, as the tests at the end of this file check.
EXEMPT = {
    "crossmodal.files.checked_yaml",
    "crossmodal.errors",
    *(f"crossmodal.settings.{file}" for file in SECTIONS),
    "crossmodal.settings.params",
    "crossmodal.terminal",
    "crossmodal.tracking.run",
    "crossmodal.tracking.store",
    "crossmodal.paths",
}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("crossmodal", "stages", include_external_packages=False, cache_dir=None)


def source_file(module):
    base = ROOT / "src" if module.startswith("crossmodal") else ROOT
    path = base / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.relative_to(ROOT).as_posix()


def reached_files(graph, stage):
    """Files with content of the stage, of everything it imports, and of the packages these lie in."""
    seen, queue = set(), [f"stages.{stage}"]
    while queue:
        module = queue.pop()
        if module in seen:
            continue
        seen.add(module)
        queue += graph.find_modules_directly_imported_by(module)
    seen -= EXEMPT
    packages = {module.rsplit(".", 1)[0] for module in seen} - {"crossmodal", "stages"}
    files = {source_file(module) for module in seen | packages}
    return {file for file in files if (ROOT / file).stat().st_size}


@pytest.mark.parametrize("stage", STAGES)
def test_source_dependencies_are_the_imports(graph, stage):
    declared = {path for path in STAGES[stage]["deps"] if path.startswith(("src/", "stages/"))}
    expanded = set()
    for path in declared:
        if (ROOT / path).is_dir():
            expanded |= {file.relative_to(ROOT).as_posix() for file in (ROOT / path).rglob("*.py")}
        else:
            expanded.add(path)
    filled = {file for file in expanded if (ROOT / file).stat().st_size}
    assert filled <= reached_files(graph, stage) <= expanded


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_exist(stage):
    """To the last part of their names: DVC takes a key that is not there for one without a value."""
    for name in STAGES[stage].get("params", []):
        if name in ("${dataset}", "${model}"):
            continue
        section = Params
        for part in name.split("."):
            assert part in section.model_fields, f"{stage}: {name}"
            section = section.model_fields[part].annotation


def test_settings_are_split_for_the_stages_that_read_them():
    """A file for each stage, from every section that says how regions and captions are made."""
    params = load_params(ROOT / "params.yaml")
    files = {f"data/settings/{stage}.json": stage for stage in settings_in_use(params)}
    assert set(STAGES["settings"]["outs"]) == set(files)
    for file, stage in files.items():
        assert [name for name in STAGES if file in STAGES[name]["deps"]] == [stage]
    sections = {"dataset", "regions", "bert", *(backend.section for backend in BACKENDS.values())}
    sections |= {"captions.encoder", "bigru", "bert_finetune"}
    assert set(STAGES["settings"]["params"]) == sections


def test_only_report_leaves_outs_uncached():
    """One uncached or persistent out turns the run cache of a stage off: going back would train again."""
    for name, stage in STAGES.items():
        assert not stage.get("always_changed")
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert not options.get("persist")
            assert options.get("cache", True) or name == "report"


FLOORS = [  # rooms of the package from the top down; a room imports from lower floors alone
    ("cli",),
    ("commands",),
    ("stages", "revisions"),
    ("reports", "sharing"),
    ("serving",),
    ("evidence",),
    ("captions", "regions", "retrieval", "training"),
    ("doctor", "inference", "published"),
    ("datasets", "features", "losses", "models", "recipes"),
    ("evaluation", "settings", "tracking", "workspace"),
    ("files", "limits", "runtime"),
    ("errors",),
    ("batch", "paths", "terminal"),
]


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "crossmodal" and len(parts) > 1 else parts[0]


def test_floors(graph):
    """Every module has a floor, and no import goes up or sideways to another room."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    modules = graph.modules - {"crossmodal"}
    assert {room_of(module) for module in modules} == set(floor)
    wrong = [
        (upper, lower)
        for upper in modules
        for lower in graph.find_modules_directly_imported_by(upper) & modules
        if room_of(upper) != room_of(lower) and floor[room_of(lower)] <= floor[room_of(upper)]
    ]
    assert not wrong


def test_settings_are_those_of_the_file():
    """The types of params.yaml are no dependency: they add no value and change none."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert load_params(ROOT / "params.yaml").model_dump(mode="json") == content

    def sections(section):
        for field in section.model_fields.values():
            assert field.is_required(), f"{section.__name__}: a default in the code"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                sections(field.annotation)

    sections(Params)


@pytest.mark.slow
def test_tracking_changes_no_out(featured_root, monkeypatch):
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"model": "vsepp"}
    content["train"] |= {"epochs": 2, "batch_size": 9}
    (featured_root / "params.yaml").write_text(yaml.safe_dump(content))
    outs = []
    for uri in ("", f"sqlite:///{featured_root}/mlflow.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        train.main()
        outs.append({path.name: path.read_bytes() for path in (featured_root / "models/matcher").iterdir()})
    assert (featured_root / "mlflow.db").is_file()
    assert outs[0] == outs[1]
    assert {"config.json", "model.safetensors", "history.csv"} <= set(outs[0])


def test_what_auto_means_is_a_dependency():
    """Which detector and which BERT are in use, and how seeds are set, change features and weights."""
    for stage in ("detector", "regions", "bert", "train"):
        assert {"src/crossmodal/settings/derived.py", "src/crossmodal/runtime.py"} <= set(STAGES[stage]["deps"])
