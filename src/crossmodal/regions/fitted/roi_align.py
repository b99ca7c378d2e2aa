"""RoI align with gradients that are added in a fixed order on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align


class OrderedRoIAlign(MultiScaleRoIAlign):
    """torchvision's RoI align of one map with one sample per cell; on a GPU by indexing, equal up to rounding.

    The backward pass of torchvision's CUDA kernel adds in any order; its deterministic form needs Triton.
    ``scale`` is fixed: torchvision's class derives it from the first image, 1/4 instead of 1/8 after one of 20 pixels.
    """

    def __init__(self, name: str, cells: int, scale: float) -> None:
        super().__init__([name], cells, sampling_ratio=1)
        self.name, self.cells, self.scale = name, cells, scale

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Regions of all images, one after the other: (K, C, cells, cells)."""
        if x[self.name].device.type == "cpu":
            return roi_align(x[self.name], boxes, self.output_size, self.scale, self.sampling_ratio)
        return ordered_roi_align(x[self.name], boxes, self.cells, self.scale)


def ordered_roi_align(features: Tensor, boxes: list[Tensor], cells: int, scale: float) -> Tensor:
    """Samples at the centres of a region's cells: (B, C, H, W), B x (K_b, 4) in pixels to (K, C, cells, cells).

    RoI align of Mask R-CNN (arXiv 1703.06870, section 3) with one sample per cell; a region is at least one cell of the
    map wide and high, samples outside the map are 0.
    """
    counts = torch.tensor([len(part) for part in boxes], device=features.device)
    image = torch.repeat_interleave(counts, output_size=sum(len(part) for part in boxes))[:, None, None]
    left, top, right, bottom = (torch.cat(boxes) * scale).unbind(dim=1)
    y = _samples(top, bottom, cells)[:, :, None]  # (K, cells, 1)
    x = _samples(left, right, cells)[:, None, :]
    height, width = features.shape[2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    sampled = 0
    for row, row_weight in _adjacent_cells(y, height):
        for column, column_weight in _adjacent_cells(x, width):
            weight = row_weight * column_weight * inside
            sampled = sampled + weight.unsqueeze(-1) * features[image, :, row, column]  # (K, cells, cells, C)
    return sampled.movedim(-1, 1)


def _samples(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Centres of the cells between two borders: (K,), (K,) to (K, cells)."""
    step = (end - start).clamp(min=1) / cells
    return start[:, None] + (torch.arange(cells, device=start.device) + 0.5) * step[:, None]


def _adjacent_cells(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two cells of the map around a sample, and their weights."""
    position = position.clamp(0, size - 1)
    low = position.floor()
    weight = position - low
    low = low.long()
    return [(low, 1 - weight), ((low + 1).clamp(max=size - 1), weight)]
