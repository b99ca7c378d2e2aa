"""Grid features: the cells of a convolutional (or patch) backbone's last feature map as regions.

Any timm model; the photograph is resized to a square, whole, as grid features usually are ("In Defense of
Grid Features", arXiv 2001.03615). The network of the stage is kept as safetensors with its timm name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from crossmodal.errors import UserError, first_line
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
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


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
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"grid.weights {path}: not found") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"grid.weights {path}: not a readable safetensors file ({error})") from None
    classifier = model.default_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {key: value for key, value in weights.items() if not (heads and key.startswith(heads))}
    expected = model.state_dict()
    for key in sorted(set(expected) ^ set(weights)):
        raise UserError(
            f"grid.weights {path}: not the weights of {name}: {'lacks' if key in expected else 'holds'} {key!r}"
        )
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise UserError(
                f"grid.weights {path}: {key!r} is {tuple(value.shape)}, {name} has {tuple(expected[key].shape)}"
            )
    model.load_state_dict(weights)


class GridExtractor:
    """Every cell of the last feature map is a region; its box is the cell. A RegionExtractor."""

    def __init__(self, folder: Path) -> None:
        """Load what ``obtain_backbone`` wrote.

        Raises:
            UserError: the folder is missing, damaged, or holds another kind of network.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("backend") != "grid":
                raise UserError(f"{folder / 'config.json'}: holds a {config.get('backend')} network, expected grid")
            self.size = config["image_size"]
            self.model = _create(config["model"], config["kwargs"], pretrained=False)
            self.model.load_state_dict(load_file(folder / "model.safetensors"))
        except FileNotFoundError as error:
            missing = error.filename or folder / "model.safetensors"  # safetensors names no file
            raise UserError(f"{missing}: not found; run the detector stage first") from None
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{folder}: not a readable grid network ({' '.join(str(error).split())[:200]})") from None
        self.device = pick_device()
        self.model = self.model.to(self.device, memory_format=torch.channels_last)
        self.mean = torch.tensor(config["mean"], device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config["std"], device=self.device).view(1, 3, 1, 1)
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
