"""Grid features from a timm backbone, and extraction into the store."""

import numpy as np
import pytest
import timm
import torch
from assertions import raises_naming
from PIL import Image
from safetensors.torch import load_file, save_file

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.errors import UserError
from crossmodal.features import store
from crossmodal.features.store import FeatureStore
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.grid import GridExtractor, cell_boxes, fetch_backbone
from crossmodal.settings.features import Grid

NAME = "mobilenetv3_small_050"

HOW = Extraction(batch_size=2, backend="grid")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


def grid(path, **changes):
    settings = {
        "model": NAME,
        "kwargs": {},
        "weights": str(path),
        "image_size": 64,
        "mean": None,
        "std": None,
        "trained": 0,
    }
    return Grid(**(settings | changes))


@pytest.fixture
def extractor(tmp_path, weights):
    folder = tmp_path / "network"
    folder.mkdir()
    fetch_backbone(grid(weights), folder)
    return GridExtractor(folder)


def test_cells_by_hand():
    boxes = cell_boxes(2, 4)
    assert boxes.shape == (8, 4)
    assert boxes[0].tolist() == [0, 0, 0.25, 0.5]
    assert boxes[5].tolist() == [0.25, 0.5, 0.5, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert area.sum() == pytest.approx(1)


@torch.inference_mode()
def test_features_are_timms_own(extractor, weights):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    regions = extractor([image])[0]
    model = timm.create_model(NAME).eval()
    model.load_state_dict(load_file(weights))
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[name]).view(3, 1, 1) for name in ("mean", "std"))
    pixels = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
    expected = model.forward_features(pixels[None])[0]  # (D, 2, 2)
    assert regions.features.shape == (4, extractor.feature_dim)
    np.testing.assert_allclose(regions.features[1], expected[:, 0, 1], atol=1e-4)
    np.testing.assert_allclose(regions.features[2], expected[:, 1, 0], atol=1e-4)
    assert regions.boxes[3].tolist() == [32, 32, 64, 64]


def test_batch_of_different_sizes(extractor):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((50, 80), (64, 64), (120, 30))]
    together = extractor(images)
    for image, regions in zip(images, together, strict=True):
        np.testing.assert_allclose(regions.features, extractor([image])[0].features, atol=1e-4)
        assert regions.boxes.max(axis=0).tolist()[2:] == [image.shape[1], image.shape[0]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "mobilenet_of_nowhere"}, "grid.model 'mobilenet_of_nowhere': timm has no such model"),
        ({"model": "resnet18"}, "not the weights of resnet18"),
        ({"kwargs": {"no_such": 1}}, f"grid.kwargs: {NAME} does not take them"),
    ],
)
def test_errors_name_the_key(tmp_path, weights, changes, expected):
    with pytest.raises(UserError) as error:
        fetch_backbone(grid(weights, **changes), tmp_path)
    assert expected in str(error.value)


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(2)
    records = []
    for row in range(7):
        width, height = int(rng.integers(30, 90)), int(rng.integers(30, 90))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{row}.png")
        records.append(ImageRecord(str(row), f"images/{row}.png", "train", width, height, ("a caption",)))
    write_dataset(folder, "noise", records)
    return read_dataset(folder)


def test_extraction_resumes_to_the_same_bytes(tmp_path, monkeypatch, extractor, dataset):
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    extract_regions(dataset, extractor, whole, HOW)

    class KilledError(Exception):
        pass

    class Dying:
        feature_dim = extractor.feature_dim
        calls = 0

        def __call__(self, images):
            self.calls += 1
            if self.calls == 3:
                raise KilledError
            return extractor(images)

    with pytest.raises(KilledError):
        extract_regions(dataset, Dying(), cut, HOW)
    extract_regions(dataset, extractor, cut, HOW)
    for path in whole.iterdir():
        assert path.read_bytes() == (cut / path.name).read_bytes(), path.name
    read = FeatureStore(cut)
    assert len(read) == 7
    assert read.metadata["backend"] == "grid"
    boxes = read.read(3, "boxes")
    np.testing.assert_allclose(boxes, cell_boxes(2, 2), atol=1e-6)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no image"])
def test_broken_image_is_named(tmp_path, extractor, dataset, damage):
    path = dataset.image_path(4)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"hello")
    with raises_naming(path):
        extract_regions(dataset, extractor, tmp_path / "out", HOW)
