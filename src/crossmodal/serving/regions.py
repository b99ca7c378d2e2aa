"""Regions of a gallery's images: those that were stored, or, where none were kept, the detector's when asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from crossmodal.batch import Regions
from crossmodal.datasets.decode import read_image
from crossmodal.features.batches import read_regions
from crossmodal.features.named import WITHOUT_OBJECTS, NamedRegion, named_regions, stored_regions
from crossmodal.features.store import FeatureStore
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.query import row_of
from crossmodal.runtime import loaded_once

KEPT = 256  # images whose regions are kept once they were found


class GalleryRegions:
    """Regions by the number of an image in the gallery.

    Args:
        folder: of the region store, which may be missing. rows: of the images in it.
        photograph: path of an image. extractor: the detector, loaded when it is first needed.
        precision: ``regions.precision``.
        backend: ``regions.backend``.
    """

    def __init__(
        self,
        folder: Path,
        rows: np.ndarray,
        photograph: Callable[[int], Path],
        extractor: Callable[[], RegionExtractor],
        precision: str,
        backend: str,
    ) -> None:
        self.folder, self.rows, self.photograph = folder, rows, photograph
        self.extractor, self.precision, self.backend = extractor, precision, backend
        self._found: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._lock = Lock()

    @loaded_once
    def store(self) -> FeatureStore | None:
        """The store, if the gallery has one."""
        return FeatureStore(self.folder) if (self.folder / "index.json").is_file() else None

    def named(self, item: int) -> list[NamedRegion]:
        """Regions of an image that are worth drawing: stored, or found before; none of a grid's cells."""
        if self.store is not None:
            shows = "boxes" in self.store.arrays and self.store.metadata.get("backend") not in WITHOUT_OBJECTS
            return stored_regions(self.store, self.rows[item]) if shows else []
        with self._lock:
            row = self._found.get(item)
        return [] if row is None or self.backend in WITHOUT_OBJECTS else self._named(row)

    def batch(self, items: Sequence[int]) -> Regions:
        """Regions of images as the matcher takes them: (B, R, D).

        Raises:
            UserError: there is no store, and a photograph or the detector is missing or unreadable.
        """
        if self.store is not None:
            return read_regions(self.store, self.rows[np.asarray(items)])
        found = [self._find(item) for item in items]
        counts = torch.tensor([len(row["boxes"]) for row in found])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        features = torch.zeros(*mask.shape, found[0]["features"].shape[1])
        boxes = torch.zeros(*mask.shape, 4)
        for number, row in enumerate(found):
            features[number, : counts[number]] = torch.from_numpy(row["features"]).float()
            boxes[number, : counts[number]] = torch.from_numpy(row["boxes"])
        return Regions(features, boxes, mask)

    def boxes(self, item: int) -> list[NamedRegion]:
        """All regions of an image with their boxes, also those of a grid; none where they have no boxes."""
        if self.store is None:
            return self._named(self._find(item))
        return stored_regions(self.store, self.rows[item]) if "boxes" in self.store.arrays else []

    def _find(self, item: int) -> dict[str, np.ndarray]:
        with self._lock:
            row = self._found.get(item)
        if row is None:
            row = row_of(read_image(self.photograph(item)), self.extractor(), self.precision)
            with self._lock:
                self._found[item] = row
                while len(self._found) > KEPT:
                    self._found.popitem(last=False)
        return row

    def _named(self, row: dict[str, np.ndarray]) -> list[NamedRegion]:
        extractor = self.extractor()
        return named_regions(row, {name: getattr(extractor, name, ()) for name in ("classes", "attributes")})
