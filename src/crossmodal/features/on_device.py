"""Region features that are kept on a device, where batches are gathered (``train.features``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from crossmodal.batch import RegionIndex, Regions
from crossmodal.features.batches import region_mask
from crossmodal.features.store import FeatureStore
from crossmodal.runtime import progress

COPIED_ROWS = 256  # images that are copied together when the device is filled


class DeviceRegions:
    """The regions of some images of a store, one after the other on a device, in the store's type.

    ``index`` and ``gather`` give the batches of ``features.batches.read_regions``, to the last bit: reading needs the
    CPU alone, so that a loader's processes can do it, and the copy of a batch is of its numbers.

    Args:
        rows: of the images, distinct.
    """

    def __init__(self, store: FeatureStore, rows: np.ndarray, device: torch.device) -> None:
        self.lengths = store.lengths
        self._padding = int(store.lengths[rows].sum())  # number of an item that is 0
        self._first = np.full(len(store), -1)
        self._first[rows] = np.cumsum(store.lengths[rows]) - store.lengths[rows]
        self._arrays = {
            name: _filled(store, rows, name, self._padding + 1, device)
            for name in ("features", "boxes")
            if name in store.arrays
        }

    @staticmethod
    def size(store: FeatureStore, rows: np.ndarray) -> int:
        """Bytes that the images of ``rows`` take on a device."""
        arrays = [store.arrays[name] for name in ("features", "boxes") if name in store.arrays]
        item = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in arrays)
        return (int(store.lengths[rows].sum()) + 1) * item

    def index(self, rows: np.ndarray, keep: np.random.Generator | None = None, drop: float = 0) -> RegionIndex:
        """The batch that ``read_regions`` reads with these arguments, by numbers, on the CPU.

        Raises:
            ValueError: an image is not kept.
        """
        first, lengths = self._first[rows], self.lengths[rows]
        if (first < 0).any():
            raise ValueError("an image that is not on the device")
        item = np.arange(lengths.max())
        index = np.where(item < lengths[:, None], first[:, None] + item, self._padding)
        return RegionIndex(torch.from_numpy(index), torch.from_numpy(region_mask(self.lengths, rows, keep, drop)))

    def gather(self, index: RegionIndex) -> Regions:
        """The regions of an index that has been moved to the device; features in float32."""
        found = {
            name: values.index_select(0, index.index.flatten()).unflatten(0, index.index.shape)
            for name, values in self._arrays.items()
        }
        return Regions(found["features"].float(), found.get("boxes"), index.mask, host_mask=index.host_mask)

    def batch(self, rows: np.ndarray) -> Regions:
        """The regions of images, none dropped, on the device."""
        device, index = self._arrays["features"].device, self.index(rows)
        return self.gather(index.move(device) if device.type == "cpu" else index.pin_memory().move(device))

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's process that is not a fork: it needs the numbers alone."""
        return vars(self) | {"_arrays": {}}


def _filled(store: FeatureStore, rows: np.ndarray, name: str, items: int, device: torch.device) -> torch.Tensor:
    """An array's items of all rows: (items, *item shape), the last of them 0."""
    dtype, shape = store.arrays[name]
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    filled, start = torch.zeros(items, *shape, dtype=kind, device=device), 0
    for chunk in progress(range(0, len(rows), COPIED_ROWS), desc=f"{name} to the device", leave=False):
        part = np.concatenate([store.read(row, name) for row in rows[chunk : chunk + COPIED_ROWS]])
        filled[start : start + len(part)].copy_(torch.from_numpy(part))
        start += len(part)
    return filled
