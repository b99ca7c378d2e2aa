"""Stage regions as a person runs it: shards, precomputed features, and what a model without boxes says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from noise_images import write_noise
from processes import run_stage

from crossmodal.errors import UserError
from crossmodal.features.batches import read_regions
from crossmodal.features.store import FeatureStore
from crossmodal.inference.compatibility import check_boxes
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """params.yaml set to features that lie in "features", a dataset of 20 images, and the detector stage's folder."""
    dataset = write_noise(tmp_path / "data/dataset", 20)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["regions"]["backend"] = "precomputed"
    content["precomputed"] |= {"format": "scan", "path": "features"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "features").mkdir()
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        rows = dataset.rows(split)
        np.save(tmp_path / f"features/{name}_ims.npy", np.ones((len(rows), 36, 8), dtype=np.float32))
        captions = [text for row in rows for text in dataset.records[row].captions]
        (tmp_path / f"features/{name}_caps.txt").write_text("\n".join(captions) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(stage, *arguments):
    """Exit code, stdout and stderr of a stage in the working folder."""
    done = run_stage(stage, Path.cwd(), *arguments)
    return done.returncode, done.stdout, done.stderr


def test_precomputed_features_become_the_stages_out(workspace):
    code, _, errors = run("regions")
    assert (code, errors) == (2, "error: models/detector: not found; run the detector stage first\n")
    assert run("detector")[:2] == (0, "detector: no network, features are precomputed, in models/detector\n")
    code, output, errors = run("regions")
    assert (code, output, errors) == (0, "regions: 720 regions of 20 images (precomputed) in data/regions\n", "")
    assert not list((workspace / ".resume/regions").glob("*/*"))
    code, _, errors = run("regions", "--shard", "0/2")
    assert code == 2
    assert errors.startswith("error: --shard: regions.backend precomputed is imported by one process")
    shutil.rmtree("features")
    assert run("regions")[2] == "error: precomputed.path features: not found\n"

    store, params = FeatureStore(Path("data/regions")), load_params()
    with pytest.raises(UserError) as error:
        check_boxes("tern", params.tern.model_dump(), store)
    assert (
        str(error.value) == "data/regions: holds no boxes, which tern.positions concat needs; set tern.positions=none"
    )
    regions = read_regions(store, np.arange(3))
    assert regions.boxes is None
    settings = params.tern.model_copy(update={"positions": "none"})
    check_boxes("tern", settings.model_dump(), store)
    check_boxes("sgraf", params.sgraf.model_dump(), store)
    for name, section in {"tern": settings, "sgraf": params.sgraf, "vse_infty": params.vse_infty}.items():
        model = build_model(name, section, InputSizes(regions=8, words=8)).eval()
        assert len(model.encode_regions(regions[:2])) == 2


def test_paths_are_of_the_repository_not_of_dvcs_copy(workspace, monkeypatch):
    """``dvc exp run --queue`` works in a copy without the files that git does not know; DVC_ROOT is the repository."""
    copy = workspace / "copy"
    for name in ("data/dataset", "models"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.move("data/dataset", copy / "data/dataset")
    shutil.copy("params.yaml", copy)
    monkeypatch.chdir(copy)
    assert run("detector")[0] == 0
    assert run("regions")[1] == "regions: 720 regions of 20 images (precomputed) in data/regions\n"
