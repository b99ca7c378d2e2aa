"""timm networks for images: created by name, cut into a frozen and a trained part, and their cells.

A cut network is the same timm network twice, each without the steps of the other part. Steps are the network's children
in their order, those of a container of stages one by one.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from crossmodal.errors import UserError, first_line
from crossmodal.files.checked_json import Record, as_record, read_json

Stages = int | Literal["all"]
_REFUSED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # they name files
TIMM_RAISES = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
_TOLERANCE = 1e-4  # of the largest value: the parts have to give what the whole network gives


class Cut(Record):
    """The cut of a network into a frozen and a trained part.

    trained: its last stages. layout: of the values that enter them. channels: values of a stored row. rows: of an
    image, ``extra`` of them class and other tokens that are no cells. cells: rows and columns of the last feature map.
    """

    trained: Annotated[int, Field(ge=1)] | Literal["all"]
    layout: Literal["map", "map_last", "tokens", "pixels"]
    channels: Annotated[int, Field(ge=1, le=1 << 24)]
    rows: Annotated[int, Field(ge=1, le=1 << 24)]
    extra: Annotated[int, Field(ge=0, le=1 << 10)] = 0
    cells: Annotated[list[Annotated[int, Field(ge=1, le=1 << 14)]], Field(min_length=2, max_length=2)]


class NetworkConfig(Record):
    """config.json of a grid network's folder, which the detector stage writes."""

    backend: Literal["grid"]
    model: str
    kwargs: dict[str, Any]
    image_size: Annotated[int, Field(ge=1, le=1 << 14)]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    cut: Cut | None = None


def read_network_config(folder: Path) -> NetworkConfig:
    """Read ``config.json`` of a grid network's folder.

    Raises:
        UserError: missing, damaged, or of another kind of network.
    """
    path = folder / "config.json"
    content = read_json(path, dict, advice="run the detector stage first")
    if content.get("backend") != "grid":
        raise UserError(f"{path}: holds a {content.get('backend')} network, expected grid")
    return as_record(content, NetworkConfig, str(path))


def create_network(name: str, kwargs: dict[str, Any], *, pretrained: bool = False) -> nn.Module:
    """A timm network without its classifier, in evaluation mode.

    Raises:
        UserError: timm has no such network, or it does not take the arguments; ``pretrained``: no way to its weights.
    """
    import timm  # here: it takes seconds, and most matchers have no network of it

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
        raise UserError(f"grid.model {name!r}: timm has no such model; close names: {', '.join(close) or 'none'}")
    if kwargs.get("pad_type", "") not in ("", "same", "valid"):
        raise UserError(f"grid.kwargs.pad_type {kwargs['pad_type']!r}: allowed are 'same', 'valid' and ''")
    if refused := sorted(set(kwargs) & set(_REFUSED)):
        raise UserError(f"grid.kwargs.{refused[0]}: not allowed; weights come from grid.weights")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs).eval()
    except (AssertionError, OSError, RuntimeError, ValueError, TypeError) as error:
        if not pretrained or isinstance(error, TypeError):  # no file is at fault
            raise UserError(f"grid.kwargs: {name} does not take them ({first_line(error)})") from None
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"grid.weights hub: {name} not available ({reason}); set grid.weights to a .safetensors file"
        ) from None


def feature_map(model: nn.Module, inputs: torch.Tensor, size: int | None = None) -> torch.Tensor:
    """The last feature map as (B, D, h, w), from models that give maps, channels-last maps or tokens.

    Class, distillation and register tokens are no cells.

    Args:
        inputs: (B, 3, S, S); with ``size``, which is S, what enters the first step of a part of a network.

    Raises:
        ValueError: the model gives something else. Whatever timm raises of a size that it does not take.
    """
    output, channels = model.forward_features(inputs), model.num_features
    if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
        raise ValueError("its features are neither a map nor tokens")
    if output.ndim == 3:
        tokens = output[:, getattr(model, "num_prefix_tokens", 0) :]
        size = size or inputs.shape[-1]
        side, stride = math.isqrt(tokens.shape[1]), stride_of(model)
        if side**2 != tokens.shape[1] or (stride and abs(side - size / stride) >= 1):
            raise ValueError(f"its {tokens.shape[1]} tokens are no square of cells")
        output = tokens.transpose(1, 2).unflatten(2, (side, side))
    elif getattr(model, "output_fmt", None) == "NHWC" or output.shape[1] != channels:
        output = output.permute(0, 3, 1, 2)
    if output.shape[1] != channels:
        raise ValueError(f"its features have {output.shape[1]} values, not {channels}")
    return output


def stride_of(model: nn.Module) -> int | None:
    """Pixels of the image from one cell of the last feature map to the next, where timm tells it."""
    try:
        return model.feature_info[-1]["reduction"]
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def cell_boxes(rows: int, columns: int, stride: int | None = None, size: int = 0) -> np.ndarray:
    """Boxes of the cells of a grid in reading order, as shares of the image: (rows * columns, 4) float32.

    ``stride``: pixels of a cell, if known, of a square image of ``size`` pixels, which need not be a whole number of
    cells. Without a stride, or where the grid is not of such cells, they share the image evenly.
    """
    y, x = np.divmod(np.arange(rows * columns), columns)
    high, wide = rows, columns
    if stride and rows == columns and rows in (size // stride, -(-size // stride)):
        high = wide = size / stride  # cells that the image takes
    boxes = np.stack([x / wide, y / high, (x + 1) / wide, (y + 1) / high], axis=1)
    return boxes.clip(0, 1).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- the cut


def last_frozen(model: nn.Module, trained: int) -> dict[str, Any]:
    """timm's feature level before the last ``trained`` ones, the stages: its module, channels and stride.

    Raises:
        UserError: there are not so many.
    """
    levels = [dict(level) for level in getattr(model, "feature_info", ())]
    if trained >= len(levels):
        raise UserError(f"grid.trained {trained}: the network has {len(levels)} stages; fewer, or all, can be trained")
    return levels[-1 - trained]


def frozen_part(model: nn.Module, trained: int) -> nn.Module:
    """``model``, changed in place, without its last ``trained`` stages and what follows them."""
    _leave_out(model, last_frozen(model, trained)["module"], frozen=False)
    return model


def trained_part(model: nn.Module, trained: Stages) -> nn.Module:
    """``model``, changed in place, without what comes before its last ``trained`` stages."""
    if trained != "all":
        _leave_out(model, last_frozen(model, trained)["module"], frozen=True)
        for name in list(model._parameters):  # positions and class tokens, which are added before the first stage
            setattr(model, name, None)
    return model


def _leave_out(model: nn.Module, cut: str, *, frozen: bool) -> None:
    """Replace the steps up to ``cut``, or those after it, by steps that do nothing."""
    path = cut.split(".")
    for depth, name in enumerate(path, start=1):
        keys = [key for key, _ in model.named_children()]
        at, last = keys.index(name), depth == len(path)
        for key in keys[: at + last] if frozen else keys[at + 1 :]:
            setattr(model, key, nn.Sequential())
        model = getattr(model, name)


def cut_network(model: nn.Module, trained: Stages, size: int) -> Cut:
    """The cut of a network, found by a forward pass; ``size``: pixels of a side of the image.

    Raises:
        UserError: the network has fewer stages, or its parts do not give what the whole gives.
    """
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = feature_map(model, pixels)
        cells = list(expected.shape[-2:])
        if trained == "all":
            patch = patch_size(size)
            rows, channels = (size // patch) ** 2, 3 * patch**2
            return Cut(trained=trained, layout="pixels", channels=channels, rows=rows, cells=cells)
        try:
            values = frozen_part(copy.deepcopy(model), trained).forward_features(pixels)
            found = feature_map(trained_part(copy.deepcopy(model), trained), values, size)
        except TIMM_RAISES as error:
            raise UserError(f"grid.trained {trained}: the network cannot be cut there ({first_line(error)})") from None
    if found.shape != expected.shape or (found - expected).abs().max() > _TOLERANCE * expected.abs().max():
        raise UserError(f"grid.trained {trained}: the network cannot be cut there: its parts give something else")
    if values.ndim == 3:
        layout, extra = "tokens", getattr(model, "num_prefix_tokens", 0)
    else:
        last = getattr(model, "output_fmt", "") == "NHWC" or values.shape[1] != last_frozen(model, trained)["num_chs"]
        layout, extra = "map_last" if last else "map", 0
    rows = to_rows(values, layout)
    if math.isqrt(rows.shape[1] - extra) ** 2 != rows.shape[1] - extra:
        raise UserError(f"grid.trained {trained}: what enters the first of these stages is no square of cells")
    return Cut(trained=trained, layout=layout, channels=rows.shape[2], rows=rows.shape[1], extra=extra, cells=cells)


def patch_size(size: int) -> int:
    """Side of the square patches that pixels are stored in: the least of 16 or more that divides the image's side."""
    return next(side for side in range(min(16, size), size + 1) if size % side == 0)


def to_rows(values: torch.Tensor, layout: str) -> torch.Tensor:
    """Values at the cut as rows, cells in reading order: (B, R, C).

    map: (B, C, H, W). map_last: (B, H, W, C). tokens: (B, R, C). pixels: (B, S, S, 3), rows of patches (p, p, 3).
    """
    if layout == "map":
        return values.flatten(2).transpose(1, 2)
    if layout == "map_last":
        return values.flatten(1, 2)
    if layout == "pixels":
        side = patch_size(values.shape[1])
        patches = values.unflatten(1, (-1, side)).unflatten(3, (-1, side))  # (B, n, p, n, p, 3)
        return patches.transpose(2, 3).flatten(3).flatten(1, 2)
    return values


def row_boxes(cut: Cut, stride: int | None, size: int) -> np.ndarray:
    """Boxes of the stored rows as shares of the image: (R, 4) float32; class and other extra tokens have all of it.

    ``stride``: at the cut; ``size``: pixels of a side of the image.
    """
    side = math.isqrt(cut.rows - cut.extra)
    boxes = cell_boxes(side, side, None if cut.layout == "pixels" else stride, size)
    return np.concatenate([np.tile(np.float32([0, 0, 1, 1]), (cut.extra, 1)), boxes])
