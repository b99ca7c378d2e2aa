"""From images on disk and their captions to a dataset folder: the part that all datasets of photographs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.archives.obtain import explain_left_out, limit_bad
from crossmodal.datasets.decode import upright_size
from crossmodal.datasets.records import ImageRecord, Skipped, write_dataset
from crossmodal.errors import UserError
from crossmodal.runtime import progress

DECODERS = 4  # threads; Pillow decodes without holding the interpreter's lock


@dataclass(frozen=True)
class Entry:
    """An image that a dataset lists: ``file`` is its path below ``images/``.

    left_out: captions of it that were left out before, each a bad item of its own.
    """

    id: str
    file: str
    split: str
    captions: tuple[str, ...]
    left_out: int = 0


def check_images(paths: Sequence[Path]) -> list[tuple[int, int] | str]:
    """``decode.upright_size`` of every image: (width, height) if it decodes in full, else why it does not."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(progress(pool.map(upright_size, paths), total=len(paths), desc="decode images", unit="image"))


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

    An entry whose image is missing or does not decode is left out and listed, its captions with it. One without
    captions is left out too, and listed where none of its captions has been: an image is one bad item, not two.

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
            if not entry.left_out:
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
            raise UserError(f"{place}: no usable image is left in the split {split}{explain_left_out(skipped)}")
    write_dataset(folder, name, records, skipped=skipped, sources=sources)
