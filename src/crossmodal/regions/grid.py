"""Grid features: the cells of a convolutional (or patch) backbone's last feature map as regions.

Any timm model; the whole image is resized to a square, as is usual for grid features ("In Defense of Grid Features",
arXiv 2001.03615). A transformer is made for one size of image: it is set up for ``grid.image_size`` by timm's
``img_size``, and the positions in weights of another size are interpolated, as timm does with its own.

With ``grid.trained`` the regions are the input of the first stage that is trained with the matcher, or the pixels if
all are trained (see models.grid_backbone).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from crossmodal.errors import UserError, first_line
from crossmodal.files.checked_json import write_json
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.models.timm_network import (
    TIMM_RAISES,
    cell_boxes,
    create_network,
    cut_network,
    feature_map,
    frozen_part,
    last_frozen,
    read_network_config,
    row_boxes,
    stride_of,
    to_rows,
)
from crossmodal.regions.base import ImageRegions
from crossmodal.runtime import pick_device, setting_path
from crossmodal.settings.features import Grid


def fetch_backbone(settings: Grid, folder: Path) -> None:
    """Write weights and preprocessing of a timm backbone to ``folder``.

    Args:
        settings: timm name and keyword arguments, ``weights`` "hub" or a .safetensors file.

    Raises:
        UserError: unknown model or argument, an image size without a grid of cells, no way to the hub, a file that
            does not fit the model, or a model that cannot be cut at ``trained``.
    """
    import timm

    model, kwargs = _create_for_size(settings)
    if settings.weights == "hub":
        model = create_network(settings.model, kwargs, pretrained=True)
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
    if settings.trained:
        config["cut"] = cut_network(model, settings.trained, settings.image_size).model_dump()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)


def _create_for_size(settings: Grid) -> tuple[nn.Module, dict[str, Any]]:
    """A model of random weights that gives cells of ``grid.image_size``, and its arguments."""
    import timm

    name, size, kwargs = settings.model, settings.image_size, settings.kwargs
    config = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    fixed = config is not None and config.fixed_input_size
    made_for = kwargs.get("img_size", config.input_size[-1] if fixed else size)
    if size != made_for and not {"img_size", "dynamic_img_size"} & set(kwargs):
        kwargs = kwargs | {"img_size": size}
    hint = f"; it is made for {made_for}" if made_for != size else ""
    try:
        model = create_network(name, kwargs)
        with torch.inference_mode():
            feature_map(model, torch.zeros(1, 3, size, size))
    except UserError as error:
        if kwargs is settings.kwargs:
            raise
        raise UserError(f"grid.image_size {size}: {error}{hint}") from None
    except TIMM_RAISES as error:
        raise UserError(
            f"grid.image_size {size}: {name} gives no grid of cells for it ({first_line(error)}){hint}"
        ) from None
    return model, kwargs


def _load_weights(path: Path, model: nn.Module, settings: Grid) -> None:
    name = f"grid.weights {path}"
    weights = read_tensors(path, name=name)
    classifier = model.default_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {key: value for key, value in weights.items() if not (heads and key.startswith(heads))}
    try:
        check_tensors(weights, model.state_dict(), name, settings.model)
    except UserError as error:
        try:
            weights = _resampled(weights, model)
            check_tensors(weights, model.state_dict(), name, settings.model)
        except (UserError, *TIMM_RAISES):
            raise UserError(f"{error}, nor can they be fitted to grid.image_size {settings.image_size}") from None
    model.load_state_dict(weights)


def _resampled(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of another image size as timm reads its own: positions resampled to the model's grid.

    Raises:
        ValueError: other weights would be resampled: they are another model's. Whatever timm raises.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    fitted = convert(dict(weights), model) if convert else weights
    if any(key in weights and value.shape != weights[key].shape and "pos" not in key for key, value in fitted.items()):
        raise ValueError("more than positions are of another shape")
    return fitted


class GridExtractor:
    """Every cell of the last feature map, or of the input of the trained stages, is a region; its box is the cell."""

    one_shape = True

    def __init__(self, folder: Path) -> None:
        """Load what ``fetch_backbone`` wrote.

        Raises:
            UserError: the folder is missing, damaged, or holds another kind of network.
        """
        config, weights_path = read_network_config(folder), folder / "model.safetensors"
        weights = read_tensors(weights_path, advice="run the detector stage first")
        self.size, self.cut = config.image_size, config.cut
        try:
            model = create_network(config.model, config.kwargs)
        except UserError as error:
            raise UserError(f"{folder / 'config.json'}: {error}") from None
        check_tensors(weights, model.state_dict(), str(weights_path), config.model)
        model.load_state_dict(weights)
        self.feature_dim, self.dtype, self.stride = model.num_features, "float16", stride_of(model)
        if self.cut:
            self.feature_dim = self.cut.channels
            if self.cut.trained == "all":
                self.dtype = "uint8"
            else:
                self.stride = last_frozen(model, self.cut.trained)["reduction"]
                model = frozen_part(model, self.cut.trained)
        self.device = pick_device()
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.mean = torch.tensor(config.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config.std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Cells in reading order."""
        resized = [
            np.asarray(Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC))
            for image in images
        ]
        features, unit = self._rows(torch.from_numpy(np.stack(resized)))
        return [
            ImageRegions.unnamed(values, unit * np.tile([image.shape[1], image.shape[0]], 2).astype(np.float32))
            for image, values in zip(images, features, strict=True)
        ]

    def _rows(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, R, D) of images (B, S, S, 3) uint8, and boxes (R, 4) as shares of the image."""
        if self.cut and self.cut.trained == "all":
            return to_rows(images, "pixels").numpy(), row_boxes(self.cut, None, self.size)
        pixels = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.cut:
            values = to_rows(self.model.forward_features(pixels), self.cut.layout)  # (B, R, C)
            return values.float().cpu().numpy(), row_boxes(self.cut, self.stride, self.size)
        grid = feature_map(self.model, pixels)  # (B, D, h, w)
        features = grid.flatten(2).transpose(1, 2).float().cpu().numpy()  # (B, h * w, D)
        return features, cell_boxes(*grid.shape[-2:], self.stride, self.size)
