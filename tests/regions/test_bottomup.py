"""The bottom-up attention detector as a backend: layers against torchvision's ResNet, preprocessing, batches, store."""

import numpy as np
import pytest
import torch
import torchvision
from bottomup_random import SMALL, random_detector, random_images, settings
from PIL import Image

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.features.store import FeatureStore
from crossmodal.regions.bottomup import backend
from crossmodal.regions.bottomup.backend import BottomUpRegions, preprocess, resize_scale
from crossmodal.regions.bottomup.boxes import CAFFE
from crossmodal.regions.bottomup.folder import read_folder, write_folder
from crossmodal.regions.bottomup.network import Architecture, BottomUpNetwork
from crossmodal.regions.extraction.extract import Extraction, extract_regions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector")
    write_folder(path, random_detector(names=True), {"name": "random"})
    return path


@pytest.fixture(autouse=True)
def smaller_images(monkeypatch):
    """A sixth of the published sides, for time's sake."""
    monkeypatch.setattr(backend, "SHORT_SIDE", 100)
    monkeypatch.setattr(backend, "LONG_SIDE", 166)


def caffe_resnet50(network):
    """torchvision's ResNet-50 with our weights, its strides, pooling and last stage changed to MSRA's and Caffe's."""
    model = torchvision.models.resnet50().eval()
    state = network.backbone.state_dict() | {
        f"res5.{name}": value for name, value in network.roi_heads.res5.state_dict().items()
    }
    renamed = {}
    for name, value in state.items():
        for number in range(2, 6):
            name = name.replace(f"res{number}.", f"layer{number - 1}.")
        name = name.replace("stem.", "").replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
        for number in range(1, 4):
            name = name.replace(f"conv{number}.norm", f"bn{number}")
        renamed[name] = value
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected and all("num_batches" in name or name.startswith("fc.") for name in missing)
    model.maxpool = torch.nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    for stage in (model.layer2, model.layer3, model.layer4):
        stride = (1, 1) if stage is model.layer4 else (2, 2)
        stage[0].conv1.stride = stage[0].downsample[0].stride = stride
        stage[0].conv2.stride = (1, 1)
    for block in model.layer4:
        block.conv2.dilation = block.conv2.padding = (2, 2)
    return model


@torch.inference_mode()
def test_layers_are_those_of_torchvisions_resnet():
    architecture = Architecture(depth=50, width=64, rpn_channels=8, classes=3, attributes=2)
    network = BottomUpNetwork(architecture, CAFFE).eval()
    network.load_state_dict(random_detector(architecture).weights)
    model = caffe_resnet50(network)
    pixels = 50 * torch.randn(1, 3, 70, 101, generator=torch.Generator().manual_seed(0))
    x = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
    x = model.layer3(model.layer2(model.layer1(x)))
    ours = network.backbone(pixels)
    assert ours.shape == (1, 1024, 5, 7)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
    boxes = torch.tensor([[0.0, 0, 100, 69], [20, 10, 60, 64]])
    found = network.roi_heads(ours, boxes)
    pooled = torchvision.ops.RoIPool(14, 1 / 16)(x, [boxes])
    expected = model.layer4(pooled).mean(dim=(2, 3))
    assert found.features.shape == (2, 2048)
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    predictor = network.roi_heads.box_predictor
    for row, feature in enumerate(found.features):  # background, the last class, may be the likeliest too
        likeliest = int((predictor.cls_score.weight @ feature + predictor.cls_score.bias).argmax())
        joined = torch.cat([feature, predictor.cls_embedding.weight[likeliest]])
        hidden = (predictor.fc_attr.weight @ joined + predictor.fc_attr.bias).clamp(min=0)
        attributes = predictor.attr_score.weight @ hidden + predictor.attr_score.bias
        torch.testing.assert_close(found.attribute_logits[row], attributes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (600, 800)),
        (333, 500, (600, 901)),  # 900.9
        (360, 640, (562, 1000)),  # 562.5: halves go to the even side
        (640, 407, (943, 600)),  # 943.49
        (2000, 3000, (600, 900)),
        (1, 3000, (3, 1000)),
    ],
)
def test_sizes_after_resizing(monkeypatch, height, width, expected):
    monkeypatch.undo()  # the published sides
    scale = resize_scale(height, width)
    assert preprocess(torch.zeros(height, width, 3, dtype=torch.uint8), scale).shape[2:] == expected


def test_preprocessing_is_opencvs_arithmetic():
    image = random_images((33, 50))[0]
    scale = 1.8018018
    pixels = preprocess(torch.tensor(image), scale)[0]
    centred = image[:, :, ::-1].astype(np.float64) - [102.9801, 115.9465, 122.7717]
    assert pixels.shape == (3, 59, 90)
    for y, x in ((0, 0), (58, 89), (13, 77), (30, 31)):
        source = [(at + 0.5) / scale - 0.5 for at in (y, x)]
        low = [int(np.floor(at)) for at in source]
        share = [at - first for at, first in zip(source, low, strict=True)]
        value = np.zeros(3)
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (share[0] if dy else 1 - share[0]) * (share[1] if dx else 1 - share[1])
                value += weight * centred[np.clip(low[0] + dy, 0, 32), np.clip(low[1] + dx, 0, 49)]
        np.testing.assert_allclose(pixels[:, y, x], value, atol=1e-3)


@pytest.mark.parametrize("selection", ["caffe", "airsplay"])
def test_images_of_many_sizes_come_out_as_one_by_one(folder, selection):
    images = random_images((48, 64), (40, 90), (48, 64), (64, 48), (4, 90), (48, 64))
    extractor = BottomUpRegions(folder, settings(selection=selection, min_regions=10, max_regions=20))
    together = extractor(images)
    for image, regions in zip(images, together, strict=True):
        (alone,) = extractor([image])
        np.testing.assert_allclose(regions.features, alone.features, atol=1e-4)
        np.testing.assert_allclose(regions.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_array_equal(regions.classes, alone.classes)
        np.testing.assert_array_equal(regions.attributes, alone.attributes)
        count = len(regions.scores)
        assert 1 <= count <= 20
        assert regions.features.shape == (count, SMALL.feature_dim) and regions.features.min() >= 0
        assert (np.diff(regions.scores) <= 0).all() and 0 <= regions.scores.min() <= regions.scores.max() <= 1
        assert regions.boxes.min() >= 0 and (regions.boxes.max(axis=0)[2:] <= [image.shape[1], image.shape[0]]).all()
    assert len({tuple(regions.classes) for regions in together}) > 1


def test_classes_and_attributes_are_the_likeliest(folder):
    (image,) = random_images((48, 64))
    extractor = BottomUpRegions(folder, settings(min_regions=10, max_regions=10))
    (regions,) = extractor([image])
    scale = resize_scale(48, 64)
    (found,) = extractor.network(preprocess(torch.tensor(image), scale), scale)
    for feature, name, attribute in zip(regions.features, regions.classes, regions.attributes, strict=True):
        row = int((found.features - torch.tensor(feature)).abs().sum(dim=1).argmin())
        assert name == int(found.class_logits[row][: SMALL.classes].argmax())
        assert attribute == int(found.attribute_logits[row][: SMALL.attributes].argmax())


def test_a_detector_without_attributes(tmp_path):
    detector = random_detector(Architecture(depth=50, width=8, rpn_channels=16, classes=5, attributes=0))
    write_folder(tmp_path, detector, {"name": "random"})
    (regions,) = BottomUpRegions(tmp_path, settings())(random_images((48, 64)))
    assert len(regions.scores) == 36
    assert set(regions.attributes) == {-1}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precisions_are_near(folder, precision):
    images = random_images((48, 64), (40, 90))
    exact = BottomUpRegions(folder, settings())(images)
    with torch.autocast("cpu", precision):  # as regions.precision has it
        near = BottomUpRegions(folder, settings())(images)
    for one, other in zip(exact, near, strict=True):
        assert other.features.dtype == np.float32 and len(other.scores) == len(one.scores) == 36
        means = one.features.mean(axis=0), other.features.mean(axis=0)
        assert means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1]) > 0.99


def test_extraction_stores_names(tmp_path, folder):
    dataset = tmp_path / "dataset"
    (dataset / "images").mkdir(parents=True)
    images = random_images((48, 64), (40, 90), (48, 64))
    records = []
    for row, image in enumerate(images):
        Image.fromarray(image).save(dataset / f"images/{row}.png")
        records.append(ImageRecord(str(row), f"images/{row}.png", "train", image.shape[1], image.shape[0], ("noise",)))
    write_dataset(dataset, "noise", records)
    extractor = BottomUpRegions(folder, settings())
    extract_regions(read_dataset(dataset), extractor, tmp_path / "out", Extraction(3, "bottomup"))
    store = FeatureStore(tmp_path / "out")
    assert store.metadata["classes"] == [f"object {number}" for number in range(20)]
    assert store.metadata["attributes"] == [f"attribute {number}" for number in range(7)]
    (expected,) = extractor([images[1]])
    np.testing.assert_array_equal(store.read(1, "classes"), expected.classes)
    np.testing.assert_allclose(store.read(1, "boxes"), expected.boxes / [90, 40, 90, 40], atol=1e-6)
    np.testing.assert_allclose(store.read(1, "features"), expected.features, rtol=1e-3, atol=1e-4)


def test_a_folder_is_read_back(folder):
    detector, expected = read_folder(folder), random_detector(names=True)
    assert detector.architecture == SMALL
    assert detector.classes == expected.classes and detector.attributes == expected.attributes
    assert all(torch.equal(detector.weights[name], value) for name, value in expected.weights.items())
