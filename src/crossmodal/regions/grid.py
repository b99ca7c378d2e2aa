"""Grid features: the cells of a convolutional (or patch) backbone's last feature map as regions.

Any timm model; the photograph is resized to a square, whole, as grid features usually are ("In Defense of
Grid Features", arXiv 2001.03615). The network of the stage is kept as safetensors with its timm name.

A transformer is made for one size of image. It is set up for ``grid.image_size`` by timm's ``img_size``, and weights of
another size are fitted to it as timm fits its published ones: positions are interpolated.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from crossmodal.errors import UserError, first_line
from crossmodal.files.checked_json import Record, as_record, read_json, write_json
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.regions.base import ImageRegions
from crossmodal.runtime import pick_device, setting_path
from crossmodal.settings.params import Grid


def obtain_backbone(settings: Grid, folder: Path) -> None:
    """Write weights and preprocessing of a timm backbone to ``folder``.

    Args:
        settings: timm name and keyword arguments, ``weights`` "hub" or a .safetensors file.

    Raises:
        UserError: unknown model or argument, an image size that the model does not take or of which it gives no grid of
            cells, no way to the hub, or a file that does not fit the model.
    """
    model, kwargs = _create_for_size(settings)
    if settings.weights == "hub":
        model = _create(settings.model, kwargs, pretrained=True)
    else:
        _load_weights(setting_path(settings.weights), model, settings)
    data = timm.data.resolve_model_data_config(model)
    config = {
        "backend": "grid",
        "model": settings.model,
        "kwargs": kwargs,
        "image_size": settings.image_size,
        "mean": list(settings.mean or data["mean"]),
        "std": list(settings.std or data["std"]),
    }
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)


def _create_for_size(settings: Grid) -> tuple[nn.Module, dict[str, Any]]:
    """A model of random weights that gives cells of ``grid.image_size``, and the arguments that made it so."""
    name, size, kwargs = settings.model, settings.image_size, settings.kwargs
    config = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    fixed = config is not None and config.fixed_input_size
    made_for = kwargs.get("img_size", config.input_size[-1] if fixed else size)
    if size != made_for and not {"img_size", "dynamic_img_size"} & set(kwargs):
        kwargs = kwargs | {"img_size": size}
    hint = f"; it is made for {made_for}" if made_for != size else ""
    try:
        model = _create(name, kwargs, pretrained=False)
        with torch.inference_mode():
            feature_map(model, torch.zeros(1, 3, size, size))
    except UserError as error:
        if kwargs is settings.kwargs:
            raise
        raise UserError(f"grid.image_size {size}: {error}{hint}") from None
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"grid.image_size {size}: {name} gives no grid of cells for it ({first_line(error)}){hint}"
        ) from None
    return model, kwargs


def _create(name: str, kwargs: dict[str, Any], *, pretrained: bool) -> nn.Module:
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
        raise UserError(f"grid.model {name!r}: timm has no such model; close names: {', '.join(close) or 'none'}")
    if kwargs.get("pad_type", "") not in ("", "same", "valid"):
        raise UserError(f"grid.kwargs.pad_type {kwargs['pad_type']!r}: allowed are 'same', 'valid' and ''")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs).eval()
    except (AssertionError, OSError, RuntimeError, ValueError, TypeError) as error:
        if not pretrained or isinstance(error, TypeError):  # no file is at fault
            raise UserError(f"grid.kwargs: {name} does not take them ({first_line(error)})") from None
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"grid.weights hub: {name} could not be had ({reason}); set grid.weights to a .safetensors file"
        ) from None


def _load_weights(path: Path, model: nn.Module, settings: Grid) -> None:
    name = f"grid.weights {path}"
    weights = read_tensors(path, name=name)
    classifier = model.default_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {key: value for key, value in weights.items() if not (heads and key.startswith(heads))}
    if misfit := _misfit(weights, model):
        weights = _fitted(weights, model)
        if weights is None:
            raise UserError(
                f"{name}: not the weights of {settings.model}, "
                f"nor to be fitted to grid.image_size {settings.image_size}: {misfit}"
            )
    check_tensors(weights, model.state_dict(), name, settings.model)
    model.load_state_dict(weights)


def _misfit(weights: dict[str, torch.Tensor], model: nn.Module) -> str:
    """The first tensor that is missing, too many or of another shape; empty where all fit."""
    expected = model.state_dict()
    for key in sorted(set(expected) ^ set(weights)):
        return f"{'lacks' if key in expected else 'holds'} {key!r}"
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            return f"{key!r} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
    return ""


def _fitted(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor] | None:
    """Weights of another image size as timm reads its own: positions resampled to the model's grid.

    None if they still do not fit, or if more than positions would have to be resampled: they are of another model.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        fitted = convert(dict(weights), model) if convert else weights
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    resampled = [key for key in fitted if key in weights and fitted[key].shape != weights[key].shape]
    return None if _misfit(fitted, model) or not all("pos" in key for key in resampled) else fitted


class _Config(Record):
    """config.json of a grid network's folder."""

    backend: Literal["grid"]
    model: str
    kwargs: dict[str, Any]
    image_size: Annotated[int, Field(ge=1, le=1 << 14)]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class GridExtractor:
    """Every cell of the last feature map is a region; its box is the cell. A RegionExtractor."""

    def __init__(self, folder: Path) -> None:
        """Load what ``obtain_backbone`` wrote.

        Raises:
            UserError: the folder is missing, damaged, or holds another kind of network.
        """
        path, weights_path = folder / "config.json", folder / "model.safetensors"
        advice = "run the detector stage first"
        content = read_json(path, dict, advice=advice)
        if content.get("backend") != "grid":
            raise UserError(f"{path}: holds a {content.get('backend')} network, expected grid")
        config = as_record(content, _Config, str(path))
        weights = read_tensors(weights_path, advice=advice)
        self.size = config.image_size
        try:
            self.model = _create(config.model, config.kwargs, pretrained=False)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        check_tensors(weights, self.model.state_dict(), str(weights_path), config.model)
        self.model.load_state_dict(weights)
        self.device = pick_device()
        self.model = self.model.to(self.device, memory_format=torch.channels_last)
        self.mean = torch.tensor(config.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config.std, device=self.device).view(1, 3, 1, 1)
        self.feature_dim, self.stride = self.model.num_features, _stride(self.model)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Cells in reading order, class and attribute -1, score 1."""
        resized = [
            np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(resized)).to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        grid = feature_map(self.model, pixels)  # (B, D, h, w)
        rows, columns = grid.shape[-2:]
        features = grid.flatten(2).transpose(1, 2).float().cpu().numpy()  # (B, h * w, D)
        unit = cell_boxes(rows, columns, self.stride, self.size)
        nothing = np.full(len(unit), -1, dtype=np.int16)
        return [
            ImageRegions(
                features=values,
                boxes=unit * np.tile([image.shape[1], image.shape[0]], 2).astype(np.float32),
                classes=nothing,
                attributes=nothing,
                scores=np.ones(len(unit), dtype=np.float32),
            )
            for image, values in zip(images, features, strict=True)
        ]


def feature_map(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The last feature map as (B, D, h, w), from models that give maps, channels-last maps or tokens.

    Class, distillation and register tokens are no cells.

    Args:
        pixels: (B, 3, S, S).

    Raises:
        ValueError: the model gives something else. Whatever timm raises of a size that it does not take.
    """
    output, size = model.forward_features(pixels), model.num_features
    if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
        raise ValueError("its features are neither a map nor tokens")
    if output.ndim == 3:
        tokens = output[:, getattr(model, "num_prefix_tokens", 0) :]
        side, stride = math.isqrt(tokens.shape[1]), _stride(model)
        if side**2 != tokens.shape[1] or (stride and abs(side - pixels.shape[-1] / stride) >= 1):
            raise ValueError(f"its {tokens.shape[1]} tokens are no square of cells")
        output = tokens.transpose(1, 2).unflatten(2, (side, side))
    elif getattr(model, "output_fmt", None) == "NHWC" or output.shape[1] != size:
        output = output.permute(0, 3, 1, 2)
    if output.shape[1] != size:
        raise ValueError(f"its features have {output.shape[1]} values, not {size}")
    return output


def _stride(model: nn.Module) -> int | None:
    """Pixels of the image from one cell of the last feature map to the next, where timm tells it."""
    try:
        return model.feature_info[-1]["reduction"]
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def cell_boxes(rows: int, columns: int, stride: int | None = None, size: int = 0) -> np.ndarray:
    """Boxes of the cells of a grid in reading order, as shares of the image: (rows * columns, 4) float32.

    Args:
        stride: pixels of a cell, if known, of a square image of ``size`` pixels. Where that is no whole number of
            cells, the last ones reach beyond the image, or what is left of it is in none. Without a stride, or where
            the grid is not of such cells, they share the image evenly.
    """
    y, x = np.divmod(np.arange(rows * columns), columns)
    high, wide = rows, columns
    if stride and rows == columns and rows in (size // stride, -(-size // stride)):
        high = wide = size / stride  # cells that the image takes
    boxes = np.stack([x / wide, y / high, (x + 1) / wide, (y + 1) / high], axis=1)
    return boxes.clip(0, 1).astype(np.float32)
