"""From images on disk and their captions to a dataset folder: the part that all datasets of photographs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from crossmodal.datasets.download import left_out, limit_bad
from crossmodal.datasets.records import ImageRecord, Skipped, write_dataset
from crossmodal.errors import UserError, without_path
from crossmodal.runtime import progress

FORMATS = ("JPEG", "PNG", "WEBP")
MISSING = "missing"
DECODERS = 4  # threads; Pillow decodes without holding the interpreter's lock


@dataclass(frozen=True)
class Entry:
    """An image that a dataset lists: ``file`` is its path below ``images/``."""

    id: str
    file: str
    split: str
    captions: tuple[str, ...]


def check_images(paths: Sequence[Path]) -> list[tuple[int, int] | str]:
    """(width, height) of every image that decodes in full, else why it does not; ``MISSING`` if it is not there."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(progress(pool.map(_decode, paths), total=len(paths), desc="decode images", unit="image"))


def write_entries(
    folder: Path,
    name: str,
    entries: Sequence[Entry],
    checked: Iterable[tuple[int, int] | str],
    *,
    reasons: Mapping[str, str],
    skipped: Sequence[Skipped],
    max_bad: int,
    no_captions: str,
    splits: Mapping[str, str],
    sources: Mapping[str, str],
) -> None:
    """Write the records of all good entries, in their order, and remove all other files below ``images/``.

    An entry whose image is missing or does not decode is left out and listed, its captions with it, and so is one
    without captions.

    Args:
        checked: ``check_images`` of the entries.
        reasons: by ``Entry.file``, known beforehand why an image is missing or damaged.
        skipped: what was left out before.
        no_captions: the reason to give for an entry without captions.
        splits: splits that must not be empty, each with the place that lists its images.

    Raises:
        UserError: more than ``max_bad`` items were left out in all, or a split is empty.
    """
    skipped = list(skipped)
    records = []
    for entry, size in zip(entries, checked, strict=True):
        if isinstance(size, str):
            reason = reasons.get(entry.file, size)
            skipped.append(Skipped(entry.file, f"{reason}; its {len(entry.captions)} captions go with it"))
        elif not entry.captions:
            skipped.append(Skipped(entry.file, no_captions))
        else:
            path = f"images/{entry.file}"
            records.append(ImageRecord(entry.id, path, entry.split, *size, captions=entry.captions))
    kept = {folder / record.path for record in records}
    for path in list((folder / "images").rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()
    limit_bad(skipped, max_bad)
    for split, place in splits.items():
        if not any(record.split == split for record in records):
            raise UserError(f"{place}: no usable image is left in the split {split}{left_out(skipped)}")
    write_dataset(folder, name, records, skipped=skipped, sources=sources)


def _decode(path: Path) -> tuple[int, int] | str:
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return image.size
    except FileNotFoundError:
        return MISSING
    except UnidentifiedImageError:  # its text holds the path
        return "not a JPEG, PNG or WebP image"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"does not decode: {without_path(error)}"
