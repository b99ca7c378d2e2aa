"""Batches of images and captions: the language between data, text encoders and matchers.

Shapes: B images or captions, R regions, L tokens, D region feature size, H token feature size, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

HOST_MASK = "host_mask"  # the field that never leaves the CPU


class Batched:
    """Tensors with the same first dimension, moved and sliced together; None stays None."""

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor], *, left: str = "") -> Batched:
        changed = {name: change(value) for name, value in vars(self).items() if value is not None and name != left}
        return replace(self, **changed)

    def __len__(self) -> int:
        return len(next(value for value in vars(self).values() if value is not None))

    def __getitem__(self, rows: slice | torch.Tensor) -> Batched:
        """Rows by a slice, or by their numbers or a mask on the CPU."""
        return self._map(lambda value: value[rows if isinstance(rows, slice) else sent(rows, value.device)])

    def to(self, device: torch.device) -> Batched:
        return self._map(lambda value: value.to(device, non_blocking=True), left=HOST_MASK)

    def pin_memory(self) -> Batched:
        return self._map(torch.Tensor.pin_memory, left=HOST_MASK)


class Masked(Batched):
    """A padded batch whose ``mask`` (B, N) is known on the CPU too, so that sizes need no wait for the device.

    ``host_mask``: the mask on the CPU, of a batch that was made there and moved to a device; else None, and the device
    is asked.
    """

    mask: torch.Tensor | None
    host_mask: torch.Tensor | None

    def on_host(self) -> torch.Tensor:
        """The mask on the CPU: (B, N) bool."""
        return self.mask.cpu() if self.host_mask is None else self.host_mask

    def move(self, device: torch.device) -> Masked:
        """``to`` of regions or words on the CPU, whose mask stays known; features become float32 on the device."""
        moved = self.to(device)
        floats = {} if getattr(moved, "features", None) is None else {"features": moved.features.float()}
        return replace(moved, **floats, host_mask=None if device.type == "cpu" else self.mask)

    def whole(self) -> bool:
        """Whether nothing is padding."""
        return bool(self.on_host().all())

    def lengths(self) -> torch.Tensor:
        """Real items of each row: (B,) int64 on the CPU."""
        return self.on_host().sum(dim=1)

    def real_items(self) -> torch.Tensor | None:
        """Which of the B * N items are real: int64, on the mask's device; None: all."""
        host = self.on_host()
        return None if host.all() else sent(host.flatten().nonzero().squeeze(1), self.mask.device)


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on a device, copied from pinned memory: the CPU does not wait for what the device has to do."""
    return values if values.device.type == device.type else values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Regions(Masked):
    """A padded batch of image regions.

    features: (B, R, D) float. boxes: (B, R, 4), x1 y1 x2 y2 as shares of the image's width and height; None of
    features that came without. mask: (B, R) bool, True where there is a region. host_mask: see Masked.
    """

    features: torch.Tensor
    boxes: torch.Tensor | None
    mask: torch.Tensor
    host_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class RegionIndex(Masked):
    """A padded batch of image regions by their numbers among those kept on a device (features/on_device.py).

    index: (B, R) int64, of padding that of a region of zeros. mask, host_mask: see Regions.
    """

    index: torch.Tensor
    mask: torch.Tensor
    host_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Words(Masked):
    """A padded batch of caption tokens.

    features: (B, L, H) float, None until a text encoder has made them of the ids; the first token is [CLS] or
    <start>. mask: (B, L) bool, True where there is a token. ids: (B, L) int64, None where features are enough.
    host_mask: see Masked.
    """

    features: torch.Tensor | None
    mask: torch.Tensor
    ids: torch.Tensor | None = None
    host_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoding(Masked):
    """Images or captions as a matcher compares them.

    vectors: (B, E), one a row, L2-normalised; or (B, N, E), a set a row, with mask (B, N) True where there is
    a member. host_mask: see Masked.
    """

    vectors: torch.Tensor
    mask: torch.Tensor | None = None
    host_mask: torch.Tensor | None = None

    def float(self) -> Encoding:
        return replace(self, vectors=self.vectors.float())
