"""RoI align whose gradients are added in a fixed order on a GPU, and in a third of torchvision's time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align


class OrderedRoIAlign(MultiScaleRoIAlign):
    """torchvision's RoI align of one map with one sample per cell; on a GPU by indexing, equal up to rounding.

    The backward pass of torchvision's CUDA kernel adds in any order; its deterministic form needs Triton. That of its
    CPU kernel computes every weight again for each channel; here values and gradients have the same bits.
    ``scale`` is fixed: torchvision's class derives it from the first image, 1/4 instead of 1/8 after one of 20 pixels.
    """

    def __init__(self, name: str, cells: int, scale: float) -> None:
        super().__init__([name], cells, sampling_ratio=1)
        self.name, self.cells, self.scale = name, cells, scale

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Regions of all images, one after the other: (K, C, cells, cells)."""
        if x[self.name].device.type == "cpu":
            numbered = torch.cat([F.pad(part, (1, 0), value=image) for image, part in enumerate(boxes)])
            return _CpuRoIAlign.apply(x[self.name], numbered, self.cells, self.scale)
        return ordered_roi_align(x[self.name], boxes, self.cells, self.scale)


class _CpuRoIAlign(torch.autograd.Function):
    """torchvision's ``roi_align`` of boxes (K, 5), the image's number first; no gradients of the boxes."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, boxes: Tensor, cells: int, scale: float) -> Tensor:
        ctx.save_for_backward(boxes)
        ctx.sizes = (features.shape, cells, scale)
        return roi_align(features, boxes, cells, scale, sampling_ratio=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """A row of C gradients is added for each sample and each of the four cells around it, as torchvision does."""
        (boxes,), (shape, cells, scale) = ctx.saved_tensors, ctx.sizes
        batch, channels, height, width = shape
        left, top, right, bottom = (boxes[:, 1:] * scale).unbind(dim=1)
        y, y_weight = _samples(top, bottom, cells, height)
        x, x_weight = _samples(left, right, cells, width)
        image = boxes[:, 0].long()[:, None, None, None, None]
        at = (image * height + y[:, :, None, :, None]) * width + x[:, None, :, None, :]  # (K, cells, cells, 2, 2)
        weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        rows = grad.permute(0, 2, 3, 1).reshape(-1, 1, channels) * weight.reshape(-1, 4, 1)
        total = grad.new_zeros(batch * height * width, channels)
        total.index_add_(0, at.flatten(), rows.flatten(0, 1))
        return total.view(batch, height, width, channels).permute(0, 3, 1, 2), None, None, None


def ordered_roi_align(features: Tensor, boxes: list[Tensor], cells: int, scale: float) -> Tensor:
    """Samples at the centres of a region's cells: (B, C, H, W), B x (K_b, 4) in pixels to (K, C, cells, cells).

    RoI align of Mask R-CNN (arXiv 1703.06870, section 3) with one sample per cell; a region is at least one cell of the
    map wide and high, samples outside the map are 0.
    """
    counts = torch.tensor([len(part) for part in boxes], device=features.device)
    image = torch.repeat_interleave(counts, output_size=sum(len(part) for part in boxes))[:, None, None]
    left, top, right, bottom = (torch.cat(boxes) * scale).unbind(dim=1)
    y, y_weight = _samples(top, bottom, cells, features.shape[2])
    x, x_weight = _samples(left, right, cells, features.shape[3])
    sampled = 0
    for row in (0, 1):
        for column in (0, 1):
            weight = y_weight[:, :, None, row] * x_weight[:, None, :, column]
            values = features[image, :, y[:, :, None, row], x[:, None, :, column]]  # (K, cells, cells, C)
            sampled = sampled + weight.unsqueeze(-1) * values
    return sampled.movedim(-1, 1)


def _samples(start: Tensor, end: Tensor, cells: int, size: int) -> tuple[Tensor, Tensor]:
    """The two cells of a map around the centre of each cell of a region, and their weights: (K, cells, 2) each.

    Rounded as torchvision's kernel rounds. ``start``, ``end``: (K,) borders of the regions, in cells of the map.
    ``size``: of the map; a sample outside of it has weights of 0.
    """
    step = (end - start).clamp(min=1)[:, None] / cells
    position = start[:, None] + torch.arange(cells, device=start.device) * step + 0.5 * step
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    weight = position - low
    low = low.long()
    high = (low + 1).clamp(max=size - 1)
    return torch.stack([low, high], dim=-1), torch.stack([1 - weight, weight], dim=-1) * inside.unsqueeze(-1)
