"""params.yaml is read as a whole; what is wrong is said in one line with file and key."""

from pathlib import Path

import pytest
import yaml
from assertions import assert_names, raises_naming

from crossmodal.errors import UserError
from crossmodal.settings.derived import bert_source, region_backend, run_settings, settings_in_use
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path):
    def _write(key=None, value=None, *, remove=None):
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        for path, action in ((key, "set"), (remove, "remove")):
            if path is None:
                continue
            *parents, last = path.split(".")
            section = content
            for parent in parents:
                section = section[parent]
            if action == "set":  # a section: some of its keys
                section[last] = section[last] | value if isinstance(section.get(last), dict) else value
            else:
                del section[last]
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return _write


def test_the_shipped_file_is_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.model == "tern"
    assert params.dataset == "scenes"
    assert region_backend(params) == "torchvision"
    assert bert_source(params) == "fit"


def test_auto_follows_the_dataset(write):
    params = load_params(write("dataset", "flickr8k"))
    assert region_backend(params) == "grid"
    assert bert_source(params) == "bert-base-uncased"


CLIP_KEYS = ("regions.backend", "captions.encoder", "bert.source")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("trian", {"lr": 1}, ["trian"]),
        ("train.lrr", 1, ["train.lrr"]),
        ("train.lr", "abc", ["train.lr", "number", "'abc'"]),
        ("train.lr", -1.0, ["train.lr", "greater than 0", "-1.0"]),
        ("dataset", "imagenet", ["dataset", "scenes", "flickr8k", "flickr30k", "coco", "folder", "'imagenet'"]),
        ("tern.heads", 5, ["tern", "embed_dim 512", "heads 5"]),
        ("bottomup.max_regions", 35, ["bottomup", "min_regions 36", "max_regions 35"]),
        ("evaluate", {"mode": "shortlist_rerank", "shortlist": 9}, ["evaluate", "shortlist 9", "top_k 10"]),
        (
            "evaluate",
            {"mode": "shortlist_rerank", "shortlist_by": "muvera", "metric": "l2"},
            ["evaluate", "metric l2", "muvera", "inner_product"],
        ),
        ("loss.kwargs", {"miner": {"filter_percentage": 0.5}}, ["loss", "kwargs.miner", "null"]),
        ("train.mismatched", 1.5, ["train.mismatched", "less than 1", "1.5"]),
        ("train.workers", -1, ["train.workers", "'auto'", "equal to 0", "-1"]),
        ("loss.candidates", "all", ["loss.candidates", "'auto'", "integer", "'all'"]),
        ("train.features", "gpu", ["train.features", "'device'", "'gpu'"]),
        ("grid.trained", -1, ["grid.trained", "0", "-1"]),
        ("loss", {"name": "infonce", "temperature": 0.009}, ["loss", "temperature 0.009", "infonce", "0.01"]),
        ("loss", {"name": "crcl", "temperature": 0.001}, ["loss", "temperature 0.001", "crcl", "0.01"]),
        ("loss", {"name": "crcl", "miner": "batch_hard"}, ["loss", "miner batch_hard", "crcl", "null"]),
        ("model", "clip", ["model clip", *(f"-S {key}=clip" for key in CLIP_KEYS)]),
        (
            "train",
            {"batch_size": 5, "captions_per_image": 5},
            ["train.batch_size 5", "train.captions_per_image 5", "loss.name infonce"],
        ),
        ("loss.candidates", 4, ["loss.candidates 4", "train.neighbours 4"]),
        ("regions.backend", "precomputed", ["precomputed.path: null", "regions.backend precomputed"]),
        ("train.step_epochs", 0, ["train.step_epochs", "1", "found 0"]),
        ("train.epochs", True, ["train.epochs", "number", "True"]),
        ("coco.restval", 2, ["coco.restval", "boolean"]),
        ("gate.tset", {"rsum": 1.0}, ["gate.tset", "'test'", "'validation'", "'detector'", "'search'"]),
    ],
)
def test_wrong_value_is_named(write, key, value, named):
    path = write(key, value)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert_names(error, path, *named)


@pytest.mark.parametrize("key", ["tern", "train.lr"])
def test_missing_key_is_named(write, key):
    path = write(remove=key)
    with raises_naming(path, f"{key}: missing"):
        load_params(path)


def test_text_that_is_a_number_is_one(write):
    """YAML's own rules want a dot in 1.0e-3."""
    assert load_params(write("train.lr", "1e-3")).train.lr == 1e-3
    assert load_params(write("train.mismatched", "2e-1")).train.mismatched == 0.2
    assert load_params(write("train.mismatched", "wrong.npy")).train.mismatched == "wrong.npy"


@pytest.mark.parametrize(("text", "found"), [("a: [", "YAML"), ("- 1\n- 2\n", "list"), ("", "NoneType")])
def test_not_yaml(tmp_path, text, found):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with raises_naming(path, found):
        load_params(path)


@pytest.mark.parametrize(
    ("loss", "captions", "good"),
    [
        ({"name": "hinge", "mask_same_image": True}, 5, False),
        ({"name": "hinge", "mask_same_image": True}, 4, True),
        ({"name": "hinge", "mask_same_image": False}, 5, True),
        ({"name": "crcl", "mask_same_image": True}, 5, False),
        ({"name": "crcl", "mask_same_image": False}, 5, True),
        ({"name": "ntxent", "mask_same_image": False}, 5, False),
    ],
)
def test_a_batch_of_one_image_needs_negatives_among_its_captions(write, loss, captions, good):
    path = write("loss", loss)
    content = yaml.safe_load(path.read_text())
    content["train"] |= {"batch_size": 5, "captions_per_image": captions}
    path.write_text(yaml.safe_dump(content))
    if good:
        load_params(path)
        return
    with raises_naming(path, "train.batch_size 5", f"train.captions_per_image {captions}", f"loss.name {loss['name']}"):
        load_params(path)


def test_run_settings_hold_the_sections_in_use(write):
    settings = run_settings(load_params(write("model", "vsepp")))
    assert "vsepp" in settings
    assert "tern" not in settings
    assert set(settings["regions"]) == {"backend", "per_image", "min_score", "nms", "precision", "batch_size"}
    assert settings["regions"]["backend"] == "torchvision"
    assert settings["bert"]["source"] == "fit"
    assert "evaluate" not in settings


@pytest.mark.parametrize(
    ("backend", "trained", "counts"), [("grid", 2, True), ("grid", "all", True), ("grid", 0, False), ("clip", 2, False)]
)
def test_how_a_backbone_is_trained_counts_where_one_is(backend, trained, counts):
    params = load_params(ROOT / "params.yaml")
    regions, grid = params.regions.model_copy(update={"backend": backend}), params.grid
    params = params.model_copy(update={"regions": regions, "grid": grid.model_copy(update={"trained": trained})})
    other = params.model_copy(update={"grid_finetune": params.grid_finetune.model_copy(update={"flip": True})})
    assert (settings_in_use(other)["train"] != settings_in_use(params)["train"]) == counts
    assert (run_settings(other) != run_settings(params)) == counts


@pytest.mark.parametrize(
    ("backend", "network", "regions"),
    [
        ("torchvision", {"detector.*"}, {"regions.per_image", "regions.min_score", "regions.nms"}),
        ("grid", {"grid.*"}, set()),
        ("clip", {"clip.*"}, set()),
        ("bottomup", {"bottomup.weights", "bottomup.sha256", "bottomup.names"}, {"bottomup.nms", "bottomup.selection"}),
        ("precomputed", set(), {"precomputed.path", "precomputed.format", "precomputed.max_missing"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_setting_counts_where_its_backend_is_in_use(backend, network, regions):
    """Each setting of the sections of backends is changed by itself, and the settings in use compared."""
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"regions": params.regions.model_copy(update={"backend": backend})})
    before, effect = settings_in_use(params), {"detector": set(), "regions": set(), "bert": set(), "train": set()}
    for section in ("detector", "grid", "clip", "bottomup", "precomputed", "regions"):
        settings = getattr(params, section)
        for key in type(settings).model_fields:
            if (section, key) == ("regions", "backend"):
                continue
            changed = params.model_copy(update={section: settings.model_copy(update={key: "other"})})
            for stage, values in settings_in_use(changed).items():
                if values != before[stage]:
                    effect[stage].add(f"{section}.{key}")
    expected = {
        f"{section}.{key}"
        for section, name in (entry.split(".") for entry in network)
        for key in (type(getattr(params, section)).model_fields if name == "*" else [name])
    }
    assert effect["detector"] == expected
    assert effect["bert"] == set()
    assert effect["train"] == ({"grid.trained"} if backend == "grid" else set())
    shared = set() if backend == "precomputed" else {"regions.precision", "regions.batch_size"}
    assert regions | shared <= effect["regions"]
    assert {entry.split(".")[0] for entry in effect["regions"]} <= {entry.split(".")[0] for entry in regions | shared}
