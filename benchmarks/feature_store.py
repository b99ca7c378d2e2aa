"""Random batches out of the feature store against a file for each image, as the TERN projects keep features.

    python benchmarks/feature_store.py                      # 512 images, 36 regions of 2,048 values
    python benchmarks/feature_store.py --images 256 --repeats 25
    python benchmarks/feature_store.py --images 4096 --folder /fast/disk

The projects have NAME_att/<image>.npz (``feat``, float32) and NAME_box/<image>.npy for each image: written by
np.savez_compressed, as the scripts do that make such files of bottom-up TSVs, or by np.savez. Classes, attributes and
scores, which the store has as well, lie beside ``feat`` here, with the store's types: both sides hold the same arrays,
and a batch reads features and boxes. Features are random with the share of zeros of published ones (38 %,
../shared/butd's rows). A batch is 128 images drawn at random, in float32 at the end; the forms take turns in one
process, all files are in the page cache, and batches are compared once. Ratios are medians of each turn's.

Four runs of the second command, with one thread (OMP_NUM_THREADS=1) on a shared virtual machine of two
cores with a load of 3 to 8, gave 7.3, 8.1, 8.3 and 8.5 times the speed of plain npz and 25 to 31 times that of
compressed. One printed

    256 images, 36 regions of 2048, batches of 128, 1 threads, medians of 25
    store                4,425 images/s    148,342 bytes/image   store:   1.0 x speed, 1.000 x bytes
    npz, compressed        201 images/s    196,056 bytes/image   store:  24.7 x speed, 0.757 x bytes
    npz, plain             694 images/s    296,908 bytes/image   store:   8.3 x speed, 0.500 x bytes

so that the ratios are what counts. 148,342 of 296,908 bytes is a little below half: halves in place of floats, and no
header for each image. Compressed files are smaller than plain ones, yet larger than the store, and read most slowly.

What a batch of the store costs is memory: with an idle core, 6.5 ms of processor time for features, most of it the
kernel's, that clears the 38 MB of the result. As ``torch.from_numpy(halves).float()`` the same took 18 ms.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import seconds

from crossmodal.features.batches import read_regions
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.regions.extraction.extract import region_arrays

ZEROS = 0.38
FORMS = {"npz, compressed": np.savez_compressed, "npz, plain": np.savez}


def write_features(folder: Path, images: int, regions: int, size: int) -> None:
    """The same features in all forms, under ``folder``."""
    writer = StoreWriter(folder / "store", region_arrays(size))
    for form in FORMS:
        for part in ("att", "box"):
            (folder / form / f"bu_{part}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image in range(images):
        features = rng.gamma(0.5, 2, (regions, size)) * (rng.random((regions, size)) >= ZEROS)
        features = features.astype(np.float32)
        boxes = np.sort(rng.random((regions, 2, 2), dtype=np.float32), axis=1).reshape(regions, 4)
        found = {
            "classes": rng.integers(1600, size=regions, dtype=np.int16),
            "attributes": rng.integers(400, size=regions, dtype=np.int16),
            "scores": rng.random(regions, dtype=np.float32),
        }
        writer.append({"features": features, "boxes": boxes, **found})
        for form, save in FORMS.items():
            save(folder / form / "bu_att" / f"{image}.npz", feat=features, **found)
            np.save(folder / form / "bu_box" / f"{image}.npy", boxes)
    writer.close()


def read_files(folder: Path, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as the projects' collate functions read it."""
    features = np.stack([np.load(folder / "bu_att" / f"{row}.npz")["feat"] for row in rows])
    boxes = np.stack([np.load(folder / "bu_box" / f"{row}.npy") for row in rows])
    return torch.from_numpy(features).float(), torch.from_numpy(boxes)


def read_store(store: FeatureStore, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as training reads it."""
    batch = read_regions(store, rows)
    return batch.features, batch.boxes


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--size", type=int, default=2048, help="of a feature")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9, help="timed batches of each form")
    parser.add_argument("--folder", type=Path, help="where the files go (a temporary folder)")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        folder = Path(name)
        write_features(folder, settings.images, settings.regions, settings.size)
        store = FeatureStore(folder / "store")
        readers: dict[str, Callable] = {"store": lambda rows: read_store(store, rows)}
        readers |= {form: lambda rows, form=form: read_files(folder / form, rows) for form in FORMS}
        rng = np.random.default_rng(1)
        rows = rng.integers(settings.images, size=settings.batch)
        for form in FORMS:
            for ours, theirs in zip(readers["store"](rows), readers[form](rows), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=2**-11, atol=1e-7)  # float16 against float32
        times: dict[str, list[float]] = {form: [] for form in readers}
        for _ in range(settings.repeats):
            rows = rng.integers(settings.images, size=settings.batch)
            for form, read in readers.items():
                times[form].append(seconds(lambda read=read, rows=rows: read(rows), "cpu"))
        speed = {form: settings.batch / np.median(values) for form, values in times.items()}
        ratio = {form: np.median(np.divide(values, times["store"])) for form, values in times.items()}
        size = {form: size_of(folder / form) / settings.images for form in readers}
    print(
        f"{settings.images} images, {settings.regions} regions of {settings.size}, batches of {settings.batch}, "
        f"{torch.get_num_threads()} threads, medians of {settings.repeats}"
    )
    for form in readers:
        against = f"store: {ratio[form]:5.1f} x speed, {size['store'] / size[form]:.3f} x bytes"
        print(f"{form:<16} {speed[form]:9,.0f} images/s  {size[form]:9,.0f} bytes/image   {against}")


if __name__ == "__main__":
    main()
