"""Pictures of noise of a few sizes, and a network that needs no weights."""

import numpy as np
from PIL import Image

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.regions.base import ImageRegions

SIZES = ((40, 30), (30, 40), (40, 30), (24, 24))


class MeanColour:
    """One to three regions, by the image's height: the mean colour of the whole image, and the region's number."""

    feature_dim = 4
    classes = ("thing",)

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        self.calls.append([image.shape[1::-1] for image in images])
        return [self.regions(image) for image in images]

    @staticmethod
    def regions(image):
        height, width = image.shape[:2]
        count = 1 + height % 7 % 3
        means = image.reshape(-1, 3).mean(axis=0, dtype=np.float64)
        return ImageRegions(
            features=np.stack([np.append(means, number) for number in range(count)]).astype(np.float32),
            boxes=np.tile(np.array([0, 0, width / 2, height], dtype=np.float32), (count, 1)),
            classes=np.zeros(count, dtype=np.int16),
            attributes=np.full(count, -1, dtype=np.int16),
            scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        )


def write_noise(folder, images, captions=5):
    """A dataset of ``images`` pictures of noise; every fifth is in val, every tenth in test."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(2)
    records = []
    for row in range(images):
        width, height = SIZES[row % len(SIZES)]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"images/{row}.png")
        split = "test" if row % 10 == 9 else "val" if row % 5 == 4 else "train"
        texts = tuple(f"Picture {row}, caption {number}." for number in range(captions))
        records.append(ImageRecord(f"noise{row}", f"images/{row}.png", split, width, height, texts))
    write_dataset(folder, "noise", records)
    return read_dataset(folder)


def same_bytes(one, other):
    """Two folders hold the same files."""
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
