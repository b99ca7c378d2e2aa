"""From images on disk and their captions to a dataset folder: the part that all datasets of photographs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive, obtain_one_of
from crossmodal.datasets.archives.unpack import plain_name, unpack
from crossmodal.datasets.decode import upright_size
from crossmodal.datasets.records import ImageRecord, Skipped, write_dataset
from crossmodal.errors import UserError
from crossmodal.runtime import progress
from crossmodal.settings.datasets import Download

SPLITS = ("train", "val", "test")
DECODERS = 4  # threads; Pillow decodes without holding the interpreter's lock


@dataclass(frozen=True)
class Published:
    """A dataset as it was given out: the captions and every ``photographs`` are needed, each in any one of its forms.

    members: files in the captions' archive by what they hold, "captions" or a split.
    """

    name: str
    captions: tuple[Archive, ...]
    photographs: tuple[tuple[Archive, ...], ...]
    members: Mapping[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Listing:
    """A dataset as its files list it.

    skipped: what was left out of the list. no_captions: the reason to give for an entry without captions. splits: those
    that must not be empty, each with the file that lists its images. sources: checksums of the files, by name.
    """

    name: str
    entries: Sequence[Entry]
    skipped: Sequence[Skipped]
    no_captions: str
    splits: Mapping[str, str]
    sources: Mapping[str, str]


def build_published(
    folder: Path,
    published: Published,
    read: Callable[[Path], tuple[list[Entry], list[Skipped]]],
    download: Download,
    cache_folder: Path,
    listing: Path | None = None,
) -> None:
    """Write the dataset folder of a published dataset: obtain, ``read`` the captions, unpack, check.

    Records are in the order of the entries. The photographs go from the archive straight to their folder, with their
    bytes; each is decoded once in full. An image that is missing or does not decode is left out with its captions, and
    listed in the manifest.

    ``listing``: what ``read`` reads in place of the published captions, which then are not obtained.

    Raises:
        UserError: a file cannot be obtained or read; more than ``download.max_bad`` items were left out; a split
            would be empty.
    """
    needed = published.photographs if listing else (published.captions, *published.photographs)
    # Files that need a request form come first: a download may take hours.
    groups = sorted(needed, key=lambda forms: not any(form.terms for form in forms))
    obtained = {
        forms: obtain_one_of(forms, cache_folder, download.mirror, offline=download.offline) for forms in groups
    }
    photographs = [obtained[forms] for forms in published.photographs]
    listing = listing or obtained[published.captions].path
    entries, skipped = read(listing)
    images = folder / "images"
    files, damaged = {entry.file for entry in entries}, {}
    for found in photographs:
        left_out = unpack(found.path, images, lambda member: plain_name(member, files), tolerant=True)
        damaged |= {item.item: item.reason for item in left_out}
    names = " or ".join(found.path.name for found in photographs)
    absent = {file: f"not in {names}" for file in files if not (images / file).is_file()}
    members = {split: f"{listing}, member {member}" for split, member in published.members.items()}
    listed = Listing(
        published.name,
        entries,
        skipped,
        no_captions=f"no caption in {published.members.get('captions', listing.name)}",
        splits={split: members.get(split, str(listing)) for split in SPLITS},
        sources={obtained[forms].path.name: obtained[forms].source for forms in needed},
    )
    checked = check_images([images / entry.file for entry in entries])
    write_entries(folder, listed, checked, reasons=absent | damaged, max_bad=download.max_bad)


def check_images(paths: Sequence[Path]) -> list[tuple[int, int] | str]:
    """``decode.upright_size`` of every image: (width, height) if it decodes in full, else why it does not."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(progress(pool.map(upright_size, paths), total=len(paths), desc="decode images", unit="image"))


def write_entries(
    folder: Path,
    listing: Listing,
    checked: Iterable[tuple[int, int] | str],
    *,
    reasons: Mapping[str, str],
    max_bad: int,
) -> None:
    """Write the records of all good entries, in their order, and remove all other files below ``images/``.

    An entry whose image is missing or does not decode is left out and listed, its captions with it. One without
    captions is left out too, and listed where none of its captions has been: an image is one bad item, not two.

    Args:
        checked: ``check_images`` of the entries.
        reasons: by ``Entry.file``, known beforehand why an image is missing or damaged.

    Raises:
        UserError: more than ``max_bad`` items were left out in all, or a split is empty.
    """
    skipped = list(listing.skipped)
    records = []
    for entry, size in zip(listing.entries, checked, strict=True):
        if isinstance(size, str):
            reason = reasons.get(entry.file, size)
            skipped.append(Skipped(entry.file, f"{reason}; its {len(entry.captions)} captions go with it"))
        elif entry.captions:
            records.append(ImageRecord(entry.id, f"images/{entry.file}", entry.split, *size, captions=entry.captions))
        elif not entry.left_out:
            skipped.append(Skipped(entry.file, listing.no_captions))
    kept = {folder / record.path for record in records}
    for path in list((folder / "images").rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()
    if len(skipped) > max_bad:
        raise UserError(
            f"{len(skipped)} bad items, more than download.max_bad {max_bad} in params.yaml allows: {first_of(skipped)}"
        )
    for split, file in listing.splits.items():
        if not any(record.split == split for record in records):
            raise UserError(f"{file}: no usable image is left in the split {split}{explain_left_out(skipped)}")
    write_dataset(folder, listing.name, records, skipped=skipped, sources=listing.sources)


def first_of(skipped: Sequence[Skipped]) -> str:
    """The first three items with their reasons, and the number of the others."""
    first = "; ".join(f"{item.item}: {item.reason}" for item in skipped[:3])
    return f"{first}; and {len(skipped) - 3} more" if len(skipped) > 3 else first


def explain_left_out(skipped: Sequence[Skipped]) -> str:
    """The part of an error about missing images that says why some may be missing."""
    return f"; {len(skipped)} items were left out: {first_of(skipped)}" if skipped else ""
