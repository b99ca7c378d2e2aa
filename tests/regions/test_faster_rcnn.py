"""The detector on images that the test itself draws: learning, files, resuming, extraction, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming
from PIL import Image, ImageDraw

from crossmodal.datasets.records import GroundTruth, ImageRecord, read_dataset, write_dataset
from crossmodal.evaluation.detection import pairwise_iou
from crossmodal.regions.fitted import fit as fit
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.fitted.network import NO_ATTRIBUTE, RegionDetector, load_detector, save_detector
from crossmodal.settings.features import Detector
from crossmodal.settings.params import load_params

CLASSES = ("disc", "square")
ATTRIBUTES = ("red plain", "blue plain")
COLOURS = {"red plain": (210, 40, 40), "blue plain": (40, 60, 210)}
SETTINGS = Detector(epochs=2, batch_size=4, lr=2e-3, weight_decay=1e-4, width=8, feature_dim=32, seed=0)
PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
REGIONS = PARAMS.regions.model_copy(update={"backend": "torchvision", "per_image": 6, "min_score": 0.05, "nms": 0.5})


def draw(rng, width=96, height=96):
    """Two objects, one in each half of a grey image; their annotations."""
    image = Image.new("RGB", (width, height), (128, 128, 128))
    objects = []
    for half in range(2):
        side = int(rng.integers(24, 40))
        x = int(rng.integers(0, width // 2 - side)) + half * width // 2
        y = int(rng.integers(0, height - side))
        label, attribute = CLASSES[rng.integers(2)], ATTRIBUTES[rng.integers(2)]
        pen = ImageDraw.Draw(image)
        shape = pen.ellipse if label == "disc" else pen.rectangle
        shape((x, y, x + side - 1, y + side - 1), fill=COLOURS[attribute])
        objects.append(GroundTruth((x, y, x + side, y + side), label, attribute))
    return image, tuple(objects)


def make_dataset(folder, train, boxes=True, attributes=ATTRIBUTES):
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(train + 4):
        split = "train" if number < train else "val"
        image, objects = draw(rng, height=96 if number % 3 else 112)
        path = f"images/{number}.png"
        image.save(folder / path)
        size = {"width": image.width, "height": image.height}
        found = objects if boxes and number != 1 else ()
        records.append(ImageRecord(str(number), path, split, captions=("x",), objects=found, **size))
    write_dataset(folder, "drawn", records, classes=CLASSES, attributes=attributes)
    return read_dataset(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", train=8)


@pytest.fixture(scope="module")
def fitted(dataset, tmp_path_factory):
    """A detector after two short epochs: what it says is of no use, but it is a whole detector folder."""
    folder = tmp_path_factory.mktemp("detector") / "detector"
    fit.fit_detector(dataset, SETTINGS, folder, folder.with_name("resume"))
    return folder


def test_overfits_a_few_images(dataset, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 80, "batch_size": 8, "lr": 4e-3})
    fit.fit_detector(dataset, settings, tmp_path / "detector", tmp_path / "resume")
    seen = fit.evaluate_detector(load_detector(tmp_path / "detector"), fit.Samples(dataset, "train"))
    assert seen["ap50"] > 0.8
    assert seen["attribute_accuracy"] > 0.9
    metrics = json.loads((tmp_path / "detector" / "metrics.json").read_text())
    assert set(metrics) == {"ap50", "ap50_per_class", "attribute_accuracy", "epochs"}
    assert metrics["epochs"] == 80
    assert metrics["ap50"] == pytest.approx(np.mean([metrics["ap50_per_class"][name] for name in CLASSES]))


def test_resumed_fit_ends_at_the_same_bytes(dataset, fitted, tmp_path, monkeypatch):
    keep = fit.save_state

    def killed_after_first_epoch(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "save_state", killed_after_first_epoch)
        fit.fit_detector(dataset, SETTINGS, tmp_path / "detector", tmp_path / "resume")
    assert not (tmp_path / "detector").exists()
    torch.rand(7)  # the state of the generator must not matter
    epochs = []
    monkeypatch.setattr(fit, "save_state", lambda path, state: epochs.append(state["epochs"]))
    fit.fit_detector(dataset, SETTINGS, tmp_path / "detector", tmp_path / "resume")
    assert epochs == [2]
    for name in ("model.safetensors", "config.json", "metrics.json"):
        assert (tmp_path / "detector" / name).read_bytes() == (fitted / name).read_bytes()


def test_saved_and_loaded_detector_gives_equal_outputs(tmp_path):
    torch.manual_seed(1)
    model = RegionDetector(CLASSES, ATTRIBUTES, SETTINGS.width, SETTINGS.feature_dim).eval()
    save_detector(tmp_path / "detector", model)
    loaded = load_detector(tmp_path / "detector")
    assert (loaded.classes, loaded.attributes) == (CLASSES, ATTRIBUTES)
    assert (loaded.width, loaded.feature_dim) == (8, 32)
    image = torch.rand(3, 70, 90)
    with torch.inference_mode():
        first, second = model([image])[0], loaded([image])[0]
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)


def test_training_forward_survives_images_without_objects_or_known_attributes():
    model = RegionDetector(CLASSES, ATTRIBUTES, SETTINGS.width, SETTINGS.feature_dim)
    none = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "attributes": torch.zeros(0, dtype=torch.int64),
    }
    unknown = {
        "boxes": torch.tensor([[10.0, 10, 40, 40]]),
        "labels": torch.tensor([1]),
        "attributes": torch.tensor([NO_ATTRIBUTE]),
    }
    losses = model([torch.rand(3, 64, 64), torch.rand(3, 48, 80)], [none, unknown])
    assert losses["loss_attribute"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_regions_are_well_formed(dataset, fitted):
    extractor = TorchvisionRegions(fitted, REGIONS)
    rng = np.random.default_rng(3)
    images = [np.asarray(draw(rng, width, height)[0]) for width, height in ((96, 96), (150, 101))]
    for image, regions in zip(images, extractor(images), strict=True):
        count = len(regions.boxes)
        assert 1 <= count <= REGIONS.per_image
        assert regions.features.shape == (count, 32) and regions.features.dtype == np.float32
        assert regions.boxes.shape == (count, 4) and regions.boxes.dtype == np.float32
        assert regions.classes.shape == (count,) and regions.classes.dtype == np.int16
        assert regions.attributes.shape == (count,) and regions.attributes.dtype == np.int16
        assert regions.scores.shape == (count,) and regions.scores.dtype == np.float32
        assert ((regions.classes >= 0) & (regions.classes < 2)).all()
        assert ((regions.attributes >= 0) & (regions.attributes < 2)).all()
        assert (np.diff(regions.scores) <= 0).all() and regions.scores[0] <= 1
        height, width = image.shape[:2]
        assert (regions.boxes[:, :2] >= 0).all() and (regions.boxes[:, 2:] <= [width, height]).all()
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all()
        overlap = pairwise_iou(regions.boxes, regions.boxes)
        assert (overlap[~np.eye(count, dtype=bool)] <= REGIONS.nms + 1e-6).all()


def test_feature_belongs_to_the_regressed_box(fitted):
    """Pooling the box head at the region's own box gives the region's feature."""
    image = np.asarray(draw(np.random.default_rng(4))[0])
    regions = TorchvisionRegions(fitted, REGIONS)([image])[0]
    model = load_detector(fitted)
    pixels = (torch.tensor(image).permute(2, 0, 1) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        maps = {"0": model.backbone(pixels[None])}
        boxes = [torch.from_numpy(regions.boxes)]
        features = model.roi_heads.region_features(maps, boxes, [image.shape[:2]])
    np.testing.assert_allclose(regions.features, features.numpy(), atol=1e-5)


@pytest.mark.parametrize("min_score", [0.05, 0.999])
def test_blank_image_has_a_region(fitted, min_score):
    extractor = TorchvisionRegions(fitted, REGIONS.model_copy(update={"min_score": min_score}))
    for shape in ((96, 96, 3), (17, 9, 3)):
        regions = extractor([np.full(shape, 128, np.uint8)])[0]
        assert len(regions.boxes) >= 1 and np.isfinite(regions.features).all()


def test_regions_do_not_depend_on_the_batch(fitted):
    extractor = TorchvisionRegions(fitted, REGIONS)
    rng = np.random.default_rng(5)
    images = [np.asarray(draw(rng, width)[0]) for width in (96, 128, 96)]
    together = extractor(images)
    for image, regions in zip(images, together, strict=True):
        alone = extractor([image])[0]
        for name, values in vars(regions).items():
            np.testing.assert_array_equal(values, getattr(alone, name))


def test_dataset_without_attributes(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", train=4, attributes=())
    settings = SETTINGS.model_copy(update={"epochs": 1})
    fit.fit_detector(dataset, settings, tmp_path / "detector", tmp_path / "resume")
    metrics = json.loads((tmp_path / "detector" / "metrics.json").read_text())
    assert metrics["attribute_accuracy"] is None
    regions = TorchvisionRegions(tmp_path / "detector", REGIONS)([np.zeros((96, 96, 3), np.uint8)])[0]
    assert (regions.attributes == -1).all()


def test_mirrored_sample_mirrors_its_boxes(dataset):
    data = fit.Samples(dataset, "train")
    for index in (0, 2):
        image, target = data.sample(index, True, torch.device("cpu"))
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            centre = image[:, (y1 + y2) // 2, (x1 + x2) // 2]
            assert (centre - 128 / 255).abs().max() > 0.2
            assert x1 == 0 or torch.allclose(image[:, (y1 + y2) // 2, x1 - 1], torch.tensor(128 / 255))


def test_boxes_of_a_picture_that_is_reduced(dataset, monkeypatch):
    whole = fit.Samples(dataset, "train")
    image, boxes = whole.image(0), whole.targets[0]["boxes"]
    monkeypatch.setattr("crossmodal.datasets.decode.KEPT_PIXELS", image.shape[0] * image.shape[1] // 4)
    reduced = fit.Samples(dataset, "train")
    assert reduced.image(0).shape[:2] == (image.shape[0] // 2, image.shape[1] // 2)
    torch.testing.assert_close(reduced.targets[0]["boxes"], boxes / 2)


def test_files_of_other_models_are_refused(tmp_path, fitted):
    for path in fitted.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": 16}))
    with raises_naming("model.safetensors"):
        load_detector(tmp_path)
    (tmp_path / "config.json").write_text('{"model": "tern"}')
    with raises_naming("config.json"):
        load_detector(tmp_path)
