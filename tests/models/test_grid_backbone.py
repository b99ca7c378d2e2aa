"""A timm network cut in two gives what the whole gives; crops and flips against a slow form; boxes of final cells."""

import math

import numpy as np
import pytest
import torch
from assertions import assert_names
from safetensors.torch import save_file

from crossmodal.batch import Regions
from crossmodal.errors import UserError
from crossmodal.models.grid_backbone import BackboneSettings, GridBackbone, build_image, crop_and_flip, load_backbone
from crossmodal.models.timm_network import (
    create_network,
    cut_network,
    feature_map,
    frozen_part,
    patch_size,
    row_boxes,
    to_rows,
)

NETWORKS = {  # name -> arguments, size of the image
    "mobilenetv2_035": ({"pad_type": "same"}, 64),
    "test_resnet": ({}, 64),
    "test_convnext": ({}, 64),
    "test_vit": ({"img_size": 48, "reg_tokens": 4}, 48),  # 3 x 3 cells after 5 other tokens
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "embed_dim": 12, "depths": (1, 1, 2, 1)}, 64),
}


def network_of(name):
    """Of random weights, with batch norms that do something."""
    kwargs, size = NETWORKS[name]
    torch.manual_seed(0)
    model = create_network(name, kwargs)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model, kwargs, size


def backbone_of(name, trained, folder, **changes):
    """The whole network, and the part of it that is trained."""
    model, kwargs, size = network_of(name)
    own = {"batch_norm": "frozen", "crop_scale": 1.0, "flip": False, "checkpointing": False, "region_dropout": 0.0}
    settings = BackboneSettings(
        backend="grid",
        model=name,
        kwargs=kwargs,
        image_size=size,
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.3, 0.25],
        cut=cut_network(model, trained, size),
        **(own | changes),
    )
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    part = build_image(settings.model_dump())
    load_backbone(part, folder)
    return model, part.eval()


def images_of(size, count=2):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def normalised(images, part):
    return (images.permute(0, 3, 1, 2) / 255 - part.mean) / part.std


def stored(model, part, images):
    """Rows of images as the regions stage makes them, not rounded."""
    trained = part.cut.trained
    if trained == "all":
        return to_rows(images, "pixels").float()
    return to_rows(frozen_part(model, trained).forward_features(normalised(images, part)), part.cut.layout)


def regions_of(rows):
    return Regions(rows, None, torch.ones(rows.shape[:2], dtype=torch.bool))


@pytest.mark.parametrize("trained", [1, 2, "all"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_two_parts_are_the_whole(name, trained, tmp_path):
    model, part = backbone_of(name, trained, tmp_path)
    images = images_of(NETWORKS[name][1])
    expected = feature_map(model, normalised(images, part), part.size)  # (B, D, h, w)
    rows = stored(model, part, images)
    assert rows.shape == (2, part.cut.rows, part.cut.channels)
    found = part(regions_of(rows))
    assert found.features.shape == (2, math.prod(part.cut.cells), part.features)
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            cell = found.features[:, row * expected.shape[3] + column]
            torch.testing.assert_close(cell, expected[:, :, row, column], atol=1e-6, rtol=1e-6)
    assert found.mask.all()
    side = expected.shape[2]
    assert found.boxes[1, 1].tolist() == pytest.approx([1 / side, 0, 2 / side, 1 / side])


def test_parts_share_no_weights():
    """What is stored depends on nothing that is trained, and nothing that is frozen is in the trained part."""
    model, _, _ = network_of("mobilenetv2_035")
    whole = sum(value.numel() for value in model.parameters())
    frozen = sum(value.numel() for value in frozen_part(network_of("mobilenetv2_035")[0], 2).parameters())
    settings = {"batch_norm": "frozen", "crop_scale": 1.0, "flip": False, "checkpointing": False, "region_dropout": 0.0}
    settings |= {"backend": "grid", "model": "mobilenetv2_035", "kwargs": NETWORKS["mobilenetv2_035"][0]}
    settings |= {"image_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3, "cut": cut_network(model, 2, 64).model_dump()}
    part = build_image(settings)
    assert frozen + sum(value.numel() for value in part.parameters()) == whole


@pytest.mark.parametrize(
    ("name", "kwargs", "trained"), [("test_resnet", {}, 5), ("test_vit", {"img_size": 32}, 6), ("beit_base", {}, 1)]
)
def test_what_cannot_be_cut_is_named(name, kwargs, trained):
    if name == "beit_base":  # its blocks take more than the map
        name, kwargs = "beit_base_patch16_224", {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 2}
    with pytest.raises(UserError) as error:
        cut_network(create_network(name, kwargs), trained, 32)
    assert_names(error, f"grid.trained {trained}")


def test_pixels_are_patches_with_their_boxes():
    images = images_of(48)
    assert (patch_size(48), patch_size(224), patch_size(225), patch_size(37)) == (16, 16, 25, 37)
    rows = to_rows(images, "pixels")
    cut = cut_network(network_of("test_vit")[0], "all", 48)
    assert rows.shape == (2, cut.rows, cut.channels) == (2, 9, 768)
    for row, (left, top, right, bottom) in enumerate((48 * row_boxes(cut, None, 48)).round().astype(int)):
        assert torch.equal(rows[1, row].view(16, 16, 3), images[1, top:bottom, left:right])


def slow_crop(image, wide, high, x, y):
    """Bilinear resampling of a part of (C, H, W), centres of cells on centres of cells; wide, high: shares."""
    _, rows, columns = image.shape
    out = np.zeros_like(image)
    left, top = x * (1 - wide) * columns, y * (1 - high) * rows
    for row in range(rows):
        for column in range(columns):
            v = np.clip(top + (row + 0.5) * high - 0.5, 0, rows - 1)
            u = np.clip(left + (column + 0.5) * wide - 0.5, 0, columns - 1)
            v0, u0 = int(v), int(u)
            v1, u1 = min(v0 + 1, rows - 1), min(u0 + 1, columns - 1)
            upper = (1 - (u - u0)) * image[:, v0, u0] + (u - u0) * image[:, v0, u1]
            lower = (1 - (u - u0)) * image[:, v1, u0] + (u - u0) * image[:, v1, u1]
            out[:, row, column] = (1 - (v - v0)) * upper + (v - v0) * lower
    return out


@pytest.mark.parametrize(("scale", "flip"), [(0.4, True), (0.4, False), (1.0, True)])
def test_crops_and_flips_by_the_slow_form(scale, flip):
    values = torch.randn(16, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    found = crop_and_flip(values, scale, flip=flip)
    torch.manual_seed(5)
    areas = []
    area, aspect, x, y = torch.rand(4, 16).double().numpy() if scale < 1 else np.ones((4, 16))
    mirrored = torch.rand(16).numpy() < 0.5 if flip else np.zeros(16, dtype=bool)
    assert not flip or 0 < mirrored.sum() < 16
    for number, image in enumerate(values.numpy()):
        expected = image
        if scale < 1:
            share, ratio = scale + (1 - scale) * area[number], (4 / 3) ** (2 * aspect[number] - 1)
            wide, high = min(1, math.sqrt(share * ratio)), min(1, math.sqrt(share / ratio))
            areas.append(wide * high)
            expected = slow_crop(image, wide, high, x[number], y[number])
        expected = expected[:, :, ::-1] if mirrored[number] else expected
        np.testing.assert_allclose(found[number], expected, atol=1e-5)
    assert all(scale * 3 / 4 <= area <= 1 for area in areas)


def test_crops_in_training_alone(tmp_path):
    model, part = backbone_of("mobilenetv2_035", 1, tmp_path, crop_scale=0.5, flip=True)
    rows = regions_of(stored(model, part, images_of(64)).detach())
    assert torch.equal(part(rows).features, part(rows).features)
    part.train()
    torch.manual_seed(0)
    first, second = part(rows).features, part(rows).features
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(part(rows).features, first)


def test_other_tokens_are_not_cropped(tmp_path):
    _, part = backbone_of("test_vit", 1, tmp_path, crop_scale=0.3)
    rows = torch.randn(2, part.cut.rows, part.cut.channels)
    seen = []
    part.network.forward_features = lambda tokens: seen.append(tokens) or tokens
    part.train()(regions_of(rows))
    assert part.cut.extra == 5
    assert torch.equal(seen[0][:, :5], rows[:, :5])
    assert not torch.equal(seen[0][:, 5:], rows[:, 5:])


@pytest.mark.parametrize("kept", ["frozen", "updated"])
def test_statistics_of_batch_norms(kept, tmp_path):
    model, part = backbone_of("mobilenetv2_035", 1, tmp_path, batch_norm=kept)
    before = {key: value.clone() for key, value in part.state_dict().items()}
    rows = regions_of(stored(model, part, images_of(64)).detach())
    part.train()(rows).features.sum().backward()
    same = [torch.equal(before[key], value) for key, value in part.state_dict().items() if "running" in key]
    assert all(same) == (kept == "frozen")
    assert all(value.grad is not None for value in part.parameters())  # weights of norms too


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_changes_no_gradient(name, tmp_path):
    grads = []
    for checkpointing in (False, True):
        model, part = backbone_of(name, 1, tmp_path, checkpointing=checkpointing)
        rows = regions_of(stored(model, part, images_of(part.size)).detach())
        part.train()(rows).features.square().sum().backward()
        grads.append({key: value.grad for key, value in part.named_parameters()})
    for key, value in grads[0].items():
        torch.testing.assert_close(grads[1][key], value, atol=1e-6, rtol=1e-5)


def test_region_dropout_is_of_final_cells(tmp_path):
    _, part = backbone_of("mobilenetv2_035", 1, tmp_path, region_dropout=0.8)
    rows = regions_of(torch.randn(200, part.cut.rows, part.cut.channels))
    assert part(rows).mask.all()
    mask = part.train()(rows).mask
    assert mask.shape == (200, 4)
    assert mask.any(dim=1).all()
    kept = (4 * 0.2 + 0.8**4 * 4) / 4  # an image that would lose all keeps all
    assert mask.float().mean() == pytest.approx(kept, abs=0.05)
    assert isinstance(part, GridBackbone)
