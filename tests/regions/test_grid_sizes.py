"""Backbones that are made for one size of image, at others: transformers, windows, cells that do not come out even."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed

from crossmodal.errors import UserError
from crossmodal.regions.grid import GridExtractor, cell_boxes, feature_map, fetch_backbone
from crossmodal.settings.features import Grid

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}


def setting(name, kwargs, path, size):
    return Grid(
        model=name, kwargs=kwargs, weights=str(path), image_size=size, mean=(0.5,) * 3, std=(0.5,) * 3, trained=0
    )


def write_weights(path, name, kwargs):
    """Random weights of the size that timm made the model for; positions are so large that they matter."""
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    if "pos_embed" in weights:
        weights["pos_embed"] = torch.randn_like(weights["pos_embed"])
    save_file(weights, path)
    return path


def picture(size):
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def normalised(image):
    return (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "kwargs", "size", "cells", "prefix"),
    [
        ("vit_tiny_patch16_384", VIT, 224, 14, 1),
        ("vit_tiny_patch16_224", VIT, 224, 14, 1),
        ("vit_small_patch14_dinov2", VIT, 224, 16, 1),
        ("vit_small_patch14_reg4_dinov2", VIT, 224, 16, 5),
        ("deit_tiny_distilled_patch16_224", VIT, 96, 6, 2),
        ("vit_tiny_patch16_224", VIT | {"dynamic_img_size": True}, 96, 6, 1),
        ("swin_tiny_patch4_window7_224", SWIN, 256, 8, 0),
        ("convnext_atto", CONVNEXT, 96, 3, 0),
    ],
)
def test_features_are_those_of_timms_own_way(tmp_path, name, kwargs, size, cells, prefix):
    """timm reads the same file as published weights of its size, and fits them to the image's itself."""
    path = write_weights(tmp_path / "weights.safetensors", name, kwargs)
    fetch_backbone(setting(name, kwargs, path, size), tmp_path)
    image = picture(size)
    regions = GridExtractor(tmp_path)([image])[0]
    assert regions.features.shape[0] == cells**2
    np.testing.assert_allclose(regions.boxes, cell_boxes(cells, cells) * size, rtol=1e-6)

    sized = kwargs if name.startswith("convnext") or "dynamic_img_size" in kwargs else kwargs | {"img_size": size}
    overlay = {"file": str(path)}
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **sized).eval()
    output = theirs.forward_features(normalised(image))
    if output.ndim == 3:
        output = output[0, prefix:]
        assert len(output) == cells**2
    else:
        output = (output[0] if name.startswith("swin") else output[0].permute(1, 2, 0)).flatten(0, 1)
    np.testing.assert_allclose(regions.features, output, atol=2e-4)


def test_positions_are_resampled(tmp_path):
    path = write_weights(tmp_path / "weights.safetensors", "vit_small_patch14_reg4_dinov2", VIT)
    fetch_backbone(setting("vit_small_patch14_reg4_dinov2", VIT, path, 112), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["kwargs"] == VIT | {"img_size": 112}
    own, fitted = load_file(path), load_file(tmp_path / "model.safetensors")
    expected = resample_abs_pos_embed(own["pos_embed"], new_size=(8, 8), num_prefix_tokens=0)  # registers have none
    torch.testing.assert_close(fitted["pos_embed"], expected)
    for key in set(own) - {"pos_embed", "head.weight", "head.bias"}:
        torch.testing.assert_close(fitted[key], own[key], atol=0, rtol=0)


@torch.inference_mode()
def test_a_cell_answers_to_its_own_part_of_the_image(tmp_path):
    """The cell that changes most when a part of the image changes is the one whose box that part is in."""
    for name, kwargs, size in (
        ("vit_small_patch14_reg4_dinov2", VIT, 112),
        ("swin_tiny_patch4_window7_224", SWIN, 128),
        ("convnext_atto", CONVNEXT, 144),  # 4.5 cells
    ):
        path = write_weights(tmp_path / "weights.safetensors", name, kwargs)
        fetch_backbone(setting(name, kwargs, path, size), tmp_path)
        extractor, plain = GridExtractor(tmp_path), np.full((size, size, 3), 127, np.uint8)
        before = extractor([plain])[0]
        for row in (1, len(before.boxes) // 2, len(before.boxes) - 2):
            x1, y1, x2, y2 = before.boxes[row].round().astype(int)
            changed = plain.copy()
            changed[y1:y2, x1:x2] = picture(size)[y1:y2, x1:x2]
            moved = np.abs(extractor([changed])[0].features - before.features).sum(axis=1)
            assert moved.argmax() == row, (name, row)


def test_cells_that_do_not_come_out_even():
    assert cell_boxes(3, 3, 32, 80)[[0, 2, 8]].tolist() == pytest.approx(
        np.array([[0, 0, 0.4, 0.4], [0.8, 0, 1, 0.4], [0.8, 0.8, 1, 1]])
    )
    assert cell_boxes(2, 2, 32, 80)[3].tolist() == pytest.approx([0.4, 0.4, 0.8, 0.8])
    assert cell_boxes(8, 8, 32, 299).tolist() == cell_boxes(8, 8).tolist()  # not of whole strides
    assert cell_boxes(7, 7, 32, 224).tolist() == cell_boxes(7, 7).tolist()


@pytest.mark.parametrize(
    ("name", "kwargs", "size", "expected"),
    [
        ("vit_tiny_patch16_224", VIT | {"img_size": 96}, 224, "Input height (224) doesn't match model (96)"),
        ("pit_ti_224", {}, 224, "its 1 tokens are no square of cells"),
        ("resnet18", {"features_only": True}, 96, "gives no grid of cells"),
    ],
)
def test_what_gives_no_cells_is_refused_in_the_detector_stage(tmp_path, name, kwargs, size, expected):
    with pytest.raises(UserError) as error:
        fetch_backbone(setting(name, kwargs, tmp_path / "none.safetensors", size), tmp_path)
    assert str(error.value).startswith(f"grid.image_size {size}: {name}")
    assert expected in str(error.value)
    assert not (tmp_path / "config.json").exists()


@torch.inference_mode()
def test_a_map_with_its_channels_last_is_told_by_timm():
    """Where rows and channels are as many, shapes tell nothing."""

    class Square(torch.nn.Module):
        num_features, output_fmt = 4, "NHWC"

        def forward_features(self, pixels):
            return torch.arange(64.0).view(1, 4, 4, 4)

    found = feature_map(Square(), torch.zeros(1, 3, 64, 64))
    assert found[0, :, 1, 2].tolist() == [24, 25, 26, 27]
