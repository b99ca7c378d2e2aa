"""``grid.trained`` through the stages: what is stored, trained, evaluated, drawn, searched, embedded and packed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import assert_names
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_pipeline import BACKBONE, COLOURS, write_pipeline

from crossmodal.batch import Regions
from crossmodal.commands.search import LOADING
from crossmodal.datasets.records import read_dataset, write_dataset
from crossmodal.errors import UserError
from crossmodal.evidence.evidence import EVIDENCE_FILE, Evidence
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import load_arrays
from crossmodal.inference.scoring import encode_captions
from crossmodal.models.checkpoint import load_matcher
from crossmodal.models.timm_network import cell_boxes, create_network, feature_map
from crossmodal.paths import CAPTIONS, DATASET, DETECTOR, EVALUATION, MATCHER, REGIONS
from crossmodal.regions.grid import fetch_backbone
from crossmodal.serving.bundle import pack, unpack
from crossmodal.serving.session import Folders
from crossmodal.settings.params import load_params
from crossmodal.sharing.model_card import known_of
from stages import evaluate, regions, report, train

CASES = {"vse_infty": 1, "scan": "all", "sgraf": 2}  # model -> grid.trained
TEST = range(5, 9)  # rows of the test split


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
    """A pipeline that was trained for two epochs with crops and flips, evaluated and reported: model, folder."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    write_pipeline(folder)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        settings = yaml.safe_load((folder / "params.yaml").read_text())
        settings["model"] = name
        settings["grid"]["trained"] = CASES[name]
        settings["grid_finetune"] |= {"crop_scale": 0.6, "flip": True, "checkpointing": True}
        settings["train"] |= {"epochs": 2, "batch_size": 4, "warmup_steps": 0, "region_dropout": 0.2, "neighbours": 1}
        settings["sgraf"] |= {"module": "sgraf", "embed_dim": 16, "sim_dim": 8}
        (folder / "params.yaml").write_text(yaml.safe_dump(settings))
        records = read_dataset(DATASET).records
        splits = ["train"] * 3 + ["val"] * 2 + ["test"] * 4
        write_dataset(DATASET, "colours", [replace(r, split=s) for r, s in zip(records, splits, strict=True)])
        for path in sorted((folder / "data/regions").iterdir()):
            path.unlink()
        patch.setattr("sys.argv", ["regions"])
        fetch_backbone(load_params().grid, DETECTOR)
        regions.main()
        train.main()
        evaluate.main()
        report.main()
    assert Path.cwd() == before
    return name, folder


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained[1])
    monkeypatch.setenv("DVC_ROOT", str(trained[1]))
    return trained[0]


def pixels_of(row):
    """A photograph as the network takes it: (S, S, 3) uint8."""
    path = read_dataset(DATASET).image_path(row)
    return np.asarray(Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))


def slow_cells(member, row):
    """Cells of the whole network, frozen weights of the detector stage and trained ones of the matcher: (1, R, D)."""
    weights = load_file(DETECTOR / "model.safetensors")
    weights |= member.image.network.state_dict()
    network = create_network(BACKBONE, {})
    network.load_state_dict(weights)
    mean, std = member.image.mean, member.image.std
    values = (torch.tensor(pixels_of(row)).permute(2, 0, 1)[None] / 255 - mean) / std
    cells = feature_map(network, values)[0]  # (D, h, w)
    return torch.stack([cells[:, y, x] for y in range(cells.shape[1]) for x in range(cells.shape[2])])[None]


def slow_scores(model, captions):
    """The similarity of the test images with captions: the mean of the members'."""
    scores = []
    for member in model.members():
        cells = torch.cat([slow_cells(member, row) for row in TEST])
        boxes = torch.from_numpy(cell_boxes(2, 2)).expand(len(TEST), -1, -1)
        images = member.encode_images(Regions(cells, boxes, torch.ones(cells.shape[:2], dtype=torch.bool)))
        scores.append(member.similarity(images, encode_captions(member, FeatureStore(CAPTIONS), captions, 8)))
    return torch.stack(scores).mean(dim=0)


def test_what_is_stored(inside):
    store, trained = FeatureStore(REGIONS), CASES[inside]
    dtype, (size,) = store.arrays["features"]
    assert size == load_matcher(MATCHER)[1].stored_regions
    if trained == "all":
        assert (dtype, size, store.lengths[2]) == (np.uint8, 16 * 16 * 3, 16)
        for values, box in zip(store.read(2, "features"), 64 * store.read(2, "boxes"), strict=True):
            left, top, right, bottom = box.round().astype(int)
            np.testing.assert_array_equal(values.reshape(16, 16, 3), pixels_of(2)[top:bottom, left:right])
    else:
        side = {1: 4, 2: 8}[trained]
        assert (dtype, store.lengths[2]) == (np.float16, side**2)
        np.testing.assert_allclose(store.read(2, "boxes"), cell_boxes(side, side), atol=1e-6)


@torch.no_grad()
def test_the_evaluation_scores_the_trained_network(inside):
    model, _ = load_matcher(MATCHER)
    weights = load_file(DETECTOR / "model.safetensors")
    for member in model.members():
        own = member.image.network.state_dict()
        assert any(not torch.equal(value, weights[key]) for key, value in own.items())
    expected = slow_scores(model, np.arange(9, 17)).numpy()  # (4, 8)
    with np.load(EVALUATION / "results.npz") as arrays:
        top, scores = arrays["t2i_top"], arrays["t2i_scores"]
    for caption in range(8):
        np.testing.assert_allclose(scores[caption, :4], expected[top[caption, :4], caption], atol=5e-3)


def test_boxes_that_are_drawn_are_those_of_the_final_cells(inside):
    evidence = load_arrays(Evidence, EVALUATION / EVIDENCE_FILE)
    np.testing.assert_allclose(evidence.boxes, cell_boxes(2, 2))
    page = (EVALUATION.parent / "report/gallery.html").read_text()
    if inside == "vse_infty":  # compares no regions with words
        assert not len(evidence.pairs)
    else:
        assert (evidence.sizes[:, 0] == 4).all()
        assert '"boxes":{' in page
        assert "[[0,0,500,500],[500,0,1000,500],[0,500,500,1000],[500,500,1000,1000]]" in page


def found_by(run, *arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, LOADING)
    return [(float(score), rest) for score, rest in re.findall(r"^ +\d+ +(-?\d\.\d{3})  (.+)$", out, re.MULTILINE)]


def test_searched_embedded_and_packed(inside, run, tmp_path):
    """The same scores whichever way an image and a sentence come in."""
    with np.load(EVALUATION / "results.npz") as arrays:
        top, scores, back = arrays["t2i_top"], arrays["t2i_scores"], arrays["i2t_scores"]
    found = found_by(run, "search", f"a {COLOURS[4]} picture", "--k", 4)
    for place, (score, rest) in enumerate(found):
        assert score == pytest.approx(scores[0, place], abs=2e-3)
        assert f"images/{COLOURS[4 + top[0, place]]}.png" in rest
    by_image = found_by(run, "search", "--image", f"data/dataset/images/{COLOURS[4]}.png", "--k", 8)
    assert [score for score, _ in by_image] == pytest.approx(back[0, :8].tolist(), abs=5e-3)
    out = tmp_path / "made"
    assert run("embed", "data/dataset/images", "--out", out)[0] == 0
    embedded = found_by(run, "search", f"a {COLOURS[4]} picture", "--in", out, "--k", 8)
    ours = {rest.split(".png")[0].split("/")[-1]: score for score, rest in embedded}
    assert ours[COLOURS[4 + top[0, 0]]] == pytest.approx(scores[0, 0], abs=2e-3)
    pack(EVALUATION, DETECTOR.parents[1] / "params.yaml", Folders(), tmp_path / "packed", 1)
    hits = unpack(tmp_path / "packed").find_images(f"a {COLOURS[4]} picture", 4)
    assert [hit.score for hit in hits] == pytest.approx(scores[0, :4].tolist(), abs=2e-3)
    assert [hit.item for hit in hits] == top[0, :4].tolist()


def test_a_network_that_is_cut_elsewhere_reads_no_photographs(inside, run, tmp_path, monkeypatch):
    """Blocks of a ViT have one width: sizes tell nothing."""
    shutil.copytree(".", tmp_path / "work", ignore=shutil.ignore_patterns(".resume"))
    monkeypatch.chdir(tmp_path / "work")
    config = json.loads((DETECTOR / "config.json").read_text())
    config["cut"]["trained"] = 1 if CASES[inside] == 2 else 2
    (DETECTOR / "config.json").write_text(json.dumps(config))
    for command in (["search", "--image", "data/dataset/brown.png"], ["embed", "data/dataset/images", "--out", "made"]):
        code, _, err = run(*command)
        assert code == 2
        assert str(DETECTOR) in err and err.removeprefix(LOADING).count("\n") == 1


def test_its_card_has_the_settings_of_this_backbone_alone(inside, tmp_path):
    """The key of a training is that of the weights it started from too."""
    params, config = load_params(), load_matcher(MATCHER)[1]
    known = known_of(params, Folders(), config)
    assert known.settings["grid"]["trained"] == CASES[inside]
    shutil.copytree(DETECTOR, tmp_path / "detector")
    weights = load_file(tmp_path / "detector/model.safetensors")
    save_file({name: values + 1 for name, values in weights.items()}, tmp_path / "detector/model.safetensors")
    assert known_of(params, Folders(detector=tmp_path / "detector"), config).settings is None


@pytest.mark.parametrize(
    "change",
    [
        {"model": "no_such_network"},
        {"kwargs": {"checkpoint_path": "weights.pth"}},
        {"cut": {"trained": 99}},
        {"cut": {"cells": [3, 3]}},
        {"cut": {"rows": 5}},
        {"cut": {"channels": 5}},
        {"image_size": 1 << 20},
    ],
)
def test_a_damaged_config_is_named(inside, change, tmp_path):
    shutil.copytree(MATCHER, tmp_path / "matcher")
    path = tmp_path / "matcher/config.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        config["image"][key] = config["image"][key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(UserError) as error:
        load_matcher(tmp_path / "matcher")
    assert_names(error, path)
