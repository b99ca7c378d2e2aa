"""Thumbnails of a dataset's images and the regions that the detector found on them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from crossmodal.datasets.decode import read_thumbnail
from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.features.named import WITHOUT_OBJECTS, NamedRegion, stored_regions
from crossmodal.features.store import FeatureStore

SIDE = 192  # pixels of a thumbnail's longer side
JPEG_QUALITY = 75
MAX_REGIONS = 4
ALT = 400  # maximum characters of an alt text: every picture of a page has one


@dataclass(frozen=True)
class Picture:
    """A thumbnail and the regions to draw on it; ``row`` is the record's, ``alt`` its id and first caption."""

    row: int
    id: str
    alt: str
    image: Image.Image
    uri: str
    regions: tuple[NamedRegion, ...]


class Pictures:
    """The pictures of a dataset by record row, each read once.

    Args:
        made: (R, 4) boxes of the regions that the matcher makes of every stored image (see evidence); None or (0, 4)
            where it takes the stored ones.
    """

    def __init__(self, dataset: Dataset, store: FeatureStore, made: np.ndarray | None = None) -> None:
        if len(store) != len(dataset.records):
            raise UserError(
                f"{store.folder}: holds {len(store)} rows, {dataset.folder} has {len(dataset.records)} "
                "images; run the regions stage again"
            )
        self.dataset, self.store = dataset, store
        self.made = made if made is not None and len(made) else None
        self._read: dict[int, Picture] = {}

    def __getitem__(self, row: int) -> Picture:
        """The picture of a record.

        Raises:
            UserError: the image is missing or unreadable.
        """
        row = int(row)
        if row not in self._read:
            record = self.dataset.records[row]
            image = read_thumbnail(self.dataset.image_path(row), SIDE)
            alt = f"{record.id}: {record.captions[0]}" if record.captions else record.id
            alt = alt if len(alt) <= ALT else alt[: ALT - 1] + "…"
            self._read[row] = Picture(row, record.id, alt, image, data_uri(image), self._best_regions(row))
        return self._read[row]

    def region(self, row: int, item: int) -> NamedRegion:
        """A region of a picture, by its index among those that the matcher compares."""
        if self.made is not None:
            return NamedRegion(tuple(self.made[item].tolist()), name="", score=1.0)
        return stored_regions(self.store, row)[item]

    def boxes(self, row: int) -> np.ndarray:
        """Boxes of all regions of a picture, (R, 4), in shares of the image."""
        return self.store.read(row, "boxes") if self.made is None else self.made

    def _best_regions(self, row: int) -> tuple[NamedRegion, ...]:
        """The MAX_REGIONS best-scoring stored regions; none of a grid or of CLIP: their boxes show nothing."""
        if self.store.metadata.get("backend") in WITHOUT_OBJECTS or "scores" not in self.store.arrays:
            return ()
        best = np.argsort(-self.store.read(row, "scores"), kind="stable")[:MAX_REGIONS]
        named = stored_regions(self.store, row)
        return tuple(named[item] for item in best)


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
