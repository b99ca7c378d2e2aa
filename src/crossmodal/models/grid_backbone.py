"""The last stages of a timm network, trained with a matcher (``grid.trained``).

    stored rows (B, R, C)                       what enters the first trained stage, or all pixels
      -> map (B, C, H, W)                       crop and flip, in training
      -> last feature map (B, D, h, w)          the trained stages
      -> cells (B, h * w, D) with their boxes   what the matcher takes for regions

As VSE-infinity trains its grid networks (arXiv 2011.04305), on random parts of the photographs, half of them mirrored.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossmodal.batch import Regions, sent
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.models.base import Stored
from crossmodal.models.timm_network import (
    Cut,
    NetworkConfig,
    cell_boxes,
    create_network,
    feature_map,
    patch_size,
    stride_of,
    trained_part,
)

ASPECT = math.log(4 / 3)  # of a crop: between 3 : 4 and 4 : 3, as torchvision's RandomResizedCrop has it


class BackboneSettings(NetworkConfig):
    """Settings of a GridBackbone: the network, ``grid_finetune`` and ``train.region_dropout``."""

    cut: Cut
    batch_norm: Literal["frozen", "updated"]
    crop_scale: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    checkpointing: bool
    region_dropout: Annotated[float, Field(ge=0, lt=1)]


class GridBackbone(nn.Module):
    """Stored rows (B, R, C) of whole images to the cells of the last feature map (B, h * w, D) with their boxes."""

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__()
        self.settings, self.cut = settings, settings.cut
        network = create_network(settings.model, settings.kwargs)
        self.size, self.features = settings.image_size, network.num_features
        boxes = cell_boxes(*self.cut.cells, stride_of(network), self.size)  # of a crop: shares of the crop
        self.register_buffer("boxes", torch.tensor(boxes.tolist()), persistent=False)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(settings, name)).view(1, 3, 1, 1), persistent=False)
        self.network = trained_part(network, self.cut.trained)
        self.train()

    def forward(self, regions: Regions) -> Regions:
        extra, rows = regions.features.split([self.cut.extra, self.cut.rows - self.cut.extra], dim=1)
        values = self._map(rows)  # (B, C, H, W)
        if self.training:
            values = crop_and_flip(values, self.settings.crop_scale, flip=self.settings.flip)
        output = feature_map(self.network, self._inputs(values, extra), self.size)  # (B, D, h, w)
        features = output.flatten(2).transpose(1, 2)  # (B, h * w, D)
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        if self.training and self.settings.region_dropout:
            kept = torch.rand(mask.shape) >= self.settings.region_dropout
            mask = kept | ~kept.any(dim=1, keepdim=True)  # never all of an image
        boxes, device = self.boxes.expand(len(features), -1, -1), features.device
        return Regions(features, boxes, sent(mask, device), host_mask=None if device.type == "cpu" else mask)

    def check_cut(self) -> None:
        """See that the cut is that of the network, by a forward pass; on the meta device it costs nothing.

        Raises:
            ValueError: it gives other cells. Whatever torch raises of rows that the network does not take.
        """
        rows = torch.zeros(1, self.cut.rows, self.cut.channels)
        cells = self.eval()(Regions(rows, None, rows[..., 0] == 0)).features.shape[1]
        if cells != math.prod(self.cut.cells):
            raise ValueError(f"the backbone gives {cells} cells, cut.cells are {self.cut.cells}")

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.settings.checkpointing:
            self.network.set_grad_checkpointing(mode)
        if self.settings.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _map(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, R, C) -> (B, C, H, W); pixels normalised."""
        if self.cut.layout == "pixels":
            patch = patch_size(self.size)
            side = self.size // patch
            patches = rows.unflatten(2, (patch, patch, 3)).unflatten(1, (side, side))  # (B, n, n, p, p, 3)
            image = patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, S, S, 3)
            return (image.permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        side = math.isqrt(rows.shape[1])
        return rows.unflatten(1, (side, side)).permute(0, 3, 1, 2)

    def _inputs(self, values: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in the layout that the first trained stage takes; ``extra``: class and other tokens."""
        if self.cut.layout == "map_last":
            return values.permute(0, 2, 3, 1)
        if self.cut.layout == "tokens":
            return torch.cat([extra, values.flatten(2).transpose(1, 2)], dim=1)
        return values.contiguous(memory_format=torch.channels_last)  # faster: 0.55 s, not 0.81, for 32 images


def crop_and_flip(values: torch.Tensor, scale: float, *, flip: bool) -> torch.Tensor:
    """A random part of each map, resampled to the whole size, and half of them mirrored: (B, C, H, W).

    Parts have a share of the area between ``scale`` and 1 and a width of 3/4 to 4/3 of their height, before both are
    cut to the map. Drawn from torch's generator of the CPU.
    """
    count, device = len(values), values.device
    if scale < 1:
        area, aspect, x, y = torch.rand(4, count)
        area, aspect = scale + (1 - scale) * area, ((2 * aspect - 1) * ASPECT).exp()
        wide, high = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)  # shares of the map
        part = torch.zeros(count, 2, 3)  # of the map's coordinates, -1 to 1
        part[:, 0, 0], part[:, 1, 1] = wide, high
        part[:, 0, 2], part[:, 1, 2] = (2 * x - 1) * (1 - wide), (2 * y - 1) * (1 - high)
        grid = F.affine_grid(part, list(values.shape), align_corners=False)
        values = F.grid_sample(values, sent(grid, device), padding_mode="border", align_corners=False)
    if flip:
        mirrored = sent(torch.rand(count) < 0.5, device)
        values = torch.where(mirrored.view(-1, 1, 1, 1), values.flip(-1), values)
    return values


def build_image(settings: dict[str, Any]) -> nn.Module:
    """The image network of a matcher, of random weights; ``settings``: of BackboneSettings, nothing without one."""
    return GridBackbone(BackboneSettings.model_validate(settings)) if settings else Stored()


def load_backbone(image: nn.Module, folder: Path) -> None:
    """Start a GridBackbone from the detector stage's weights; stored regions have none.

    Raises:
        UserError: the folder's weights are missing, damaged, or of another network.
    """
    if not isinstance(image, GridBackbone):
        return
    path, own = folder / "model.safetensors", image.network.state_dict()
    weights = {key: value for key, value in read_tensors(path).items() if key in own}
    check_tensors(weights, own, str(path), image.settings.model)
    image.network.load_state_dict(weights)
