"""Grid features: the cells of a convolutional (or patch) backbone's last feature map as regions.

Any timm model; the photograph is resized to a square, whole, as grid features usually are ("In Defense of
Grid Features", arXiv 2001.03615). The network of the stage is kept as safetensors with its timm name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from crossmodal.checked_json import Record, as_record, read_json, write_json
from crossmodal.errors import UserError, first_line
from crossmodal.features.weights import check_tensors, read_tensors
from crossmodal.params import Grid
from crossmodal.regions.base import ImageRegions
from crossmodal.runtime import pick_device, setting_path


def obtain_backbone(settings: Grid, folder: Path) -> None:
    """Write weights and preprocessing of a timm backbone to ``folder``.

    Args:
        settings: timm name and keyword arguments, ``weights`` "hub" or a .safetensors file.

    Raises:
        UserError: unknown model or argument, no way to the hub, or a file that does not fit the model.
    """
    from_hub = settings.weights == "hub"
    model = _create(settings.model, settings.kwargs, pretrained=from_hub)
    if not from_hub:
        _load_weights(setting_path(settings.weights), model, settings.model)
    data = timm.data.resolve_model_data_config(model)
    config = {
        "backend": "grid",
        "model": settings.model,
        "kwargs": settings.kwargs,
        "image_size": settings.image_size,
        "mean": list(settings.mean or data["mean"]),
        "std": list(settings.std or data["std"]),
    }
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)


def _create(name: str, kwargs: dict[str, Any], *, pretrained: bool) -> nn.Module:
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
        raise UserError(f"grid.model {name!r}: timm has no such model; close names: {', '.join(close) or 'none'}")
    if kwargs.get("pad_type", "") not in ("", "same", "valid"):
        raise UserError(f"grid.kwargs.pad_type {kwargs['pad_type']!r}: allowed are 'same', 'valid' and ''")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs).eval()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        if not pretrained or isinstance(error, TypeError):  # no file is at fault
            raise UserError(f"grid.kwargs: {name} does not take them ({first_line(error)})") from None
        raise UserError(
            f"grid.weights hub: {name} could not be had ({first_line(error)}); set grid.weights to a .safetensors file"
        ) from None


def _load_weights(path: Path, model: nn.Module, name: str) -> None:
    weights = read_tensors(path, name=f"grid.weights {path}")
    classifier = model.default_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {key: value for key, value in weights.items() if not (heads and key.startswith(heads))}
    check_tensors(weights, model.state_dict(), f"grid.weights {path}", name)
    model.load_state_dict(weights)


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
        self.feature_dim = self.model.num_features

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Cells in reading order, class and attribute -1, score 1."""
        resized = [
            np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(resized)).to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        grid = self._feature_map(pixels)  # (B, D, h, w)
        rows, columns = grid.shape[-2:]
        features = grid.flatten(2).transpose(1, 2).float().cpu().numpy()  # (B, h * w, D)
        unit = cell_boxes(rows, columns)
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

    def _feature_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last feature map as (B, D, h, w), from models that give maps, channels-last maps or tokens."""
        output = self.model.forward_features(pixels)
        if output.ndim == 3:
            tokens = output[:, getattr(self.model, "num_prefix_tokens", 0) :]
            side = int(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).unflatten(2, (side, tokens.shape[1] // side))
        return output if output.shape[1] == self.feature_dim else output.permute(0, 3, 1, 2)


def cell_boxes(rows: int, columns: int) -> np.ndarray:
    """Boxes of the cells of a grid in reading order, as shares of the image: (rows * columns, 4) float32."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    boxes = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=1)
    return boxes.astype(np.float32)
