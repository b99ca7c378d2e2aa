"""Any directory of images with a file of captions, or webdataset tars with both: ``dataset: folder``."""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.archives.addresses import find_tars, names_tars
from crossmodal.datasets.assemble import SPLITS, Entry, Listing, check_images, explain_left_out, write_entries
from crossmodal.datasets.caption_files import Listed, read_caption_file
from crossmodal.datasets.caption_tars import read_tars
from crossmodal.datasets.decode import NOT_FOUND, SUFFIXES
from crossmodal.datasets.records import Skipped
from crossmodal.datasets.walk import list_files
from crossmodal.errors import UserError
from crossmodal.files.checksums import file_checksum
from crossmodal.runtime import check_space, progress, setting_path
from crossmodal.settings.datasets import Download, Folder
from crossmodal.terminal import warn


def build_folder(folder: Path, settings: Folder, download: Download) -> None:
    """Copy the images that have captions, as they are, and write the dataset folder.

    Records are in the order of the splits train, val, test and, inside a split, of the captions file or the tars; the
    id of an image is its path without the suffix, or with it where two would be the same. Without splits in the file
    they are drawn by ``seeded_splits``. Left out and listed are: an image that is missing or does not decode, one
    without captions, and what ``caption_files.read_caption_file`` leaves out.

    Raises:
        UserError: directory, file or tar not there or not readable; the images do not fit on the disk; more than
            ``download.max_bad`` items were left out; a split would be empty.
    """
    if settings.images and names_tars(settings.images) and not setting_path(settings.images).is_dir():
        if settings.captions is not None:
            raise UserError(
                f"folder.captions {settings.captions}: expected null with tars in folder.images, whose captions are in "
                "key.txt or key.json"
            )
        listed, skipped, sums = read_tars(find_tars(settings.images, setting_path), folder / "images")
        _write(
            folder, _Found(settings.images, "the tar", listed, skipped, sums, folder / "images", {}), settings, download
        )
        return
    origin, captions_path = _place("images", settings.images), _place("captions", settings.captions)
    if not origin.is_dir():
        raise UserError(f"folder.images {origin}: no such directory")
    listed, skipped = read_caption_file(captions_path, origin)
    files, _ = list_files(origin)
    sources = locate_images(origin, list(listed), files)
    used = {path.relative_to(origin).as_posix() for path in sources.values()}
    unused = [name for name, path in files.items() if path.suffix.lower() in SUFFIXES and name not in used]
    if unused:
        warn(f"{origin}: {len(unused)} images are not in the captions file, {min(unused)} for one")
    sums = {captions_path.name: f"sha256:{file_checksum(captions_path)}"}
    found = _Found(str(captions_path), captions_path.name, listed, skipped, sums, origin, sources)
    _write(folder, found, settings, download)


@dataclass(frozen=True)
class _Found:
    """Images with captions. source, short: where the captions are. sums: checksums of what was read.

    origin: folder of the images, in which ``files`` are those that must be copied, by name.
    """

    source: str
    short: str
    listed: dict[str, Listed]
    skipped: list[Skipped]
    sums: dict[str, str]
    origin: Path
    files: dict[str, Path]

    def path(self, name: str) -> Path:
        return self.files.get(name, self.origin / name)


def _write(folder: Path, found: _Found, settings: Folder, download: Download) -> None:
    listed = found.listed
    splits = {name: item.split for name, item in listed.items()}
    named = set(splits.values()) - {None}
    if absent := [split for split in SPLITS if named and split not in named]:
        raise UserError(
            f"{found.source}: no image has the split {absent[0]}; name all three of train, val and test, or none: "
            f"they are then drawn by folder.val and folder.test{explain_left_out(found.skipped)}"
        )
    sizes = dict(zip(listed, check_images([found.path(name) for name in listed]), strict=True))
    good = [name for name, size in sizes.items() if not isinstance(size, str)]
    if not named:
        digests = [file_checksum(found.path(name)) for name in progress(good, desc="read images", unit="image")]
        splits |= zip(good, seeded_splits(digests, settings.val, settings.test, settings.seed), strict=True)
    ids = _ids(list(listed))
    entries = [
        Entry(ids[name], name, split or "", tuple(listed[name].captions), listed[name].left_out)
        for split in (*SPLITS, None)
        for name in listed
        if splits[name] == split
    ]
    copied = [name for name in good if name in found.files]
    check_space(folder, sum(found.path(name).stat().st_size for name in copied), f"copying {found.origin}")
    for name in progress(copied, desc="copy images", unit="image"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.path(name), folder / "images" / name)
    listing = Listing(
        "folder",
        entries,
        found.skipped,
        no_captions=f"no caption in {found.short}",
        splits=dict.fromkeys(SPLITS, found.source),
        sources=found.sums,
    )
    missing = {name: "not in the folder" for name, size in sizes.items() if size == NOT_FOUND}
    write_entries(folder, listing, [sizes[entry.file] for entry in entries], reasons=missing, max_bad=download.max_bad)


def locate_images(origin: Path, names: Sequence[str], files: Iterable[str]) -> dict[str, Path]:
    """The file of every name, whether it exists or not; ``files`` are paths of those that do, relative to ``origin``.

    Accents may be encoded in another way on the disk (macOS decomposes them). Where no name exists, but most do without
    their first folders, as in lists made for a larger directory, these are dropped from all, unless two names would
    then be one file.
    """
    composed: dict[str, list[str]] = defaultdict(list)
    for name in files:
        composed[unicodedata.normalize("NFC", name)].append(name)

    def find(name: str) -> str | None:
        if os.path.exists(origin / name):  # noqa: PTH110 - Path.exists raises at a name that is too long
            return name
        same = composed.get(unicodedata.normalize("NFC", name), ())
        return same[0] if len(same) == 1 else None

    found = {name: find(name) for name in names}
    depth = max((name.count("/") for name in names), default=0)
    for folders in range(1, depth + 1 if not any(found.values()) else 1):
        shorter = {name: find(name.split("/", folders)[-1]) for name in names}
        present = [file for file in shorter.values() if file]
        if 2 * len(present) > len(names) and len(set(present)) == len(present):
            warn(f"{origin}: names are taken without their first {folders} folders, {names[0]}")
            found = shorter
            break
    return {name: origin / (found[name] or name) for name in names}


def seeded_splits(digests: Sequence[str], val: float, test: float, seed: int) -> list[str]:
    """A split for each image: shares ``val`` and ``test`` of them, rounded but one at least, the others train.

    The draw depends on the seed and on the images' own bytes (``digests``), neither on their names nor on their
    order, and images that are the same bytes share a split, so that none is trained on and tested with. The shares
    may be exceeded by the size of such a group.
    """
    wanted = {"test": max(1, round(test * len(digests))), "val": max(1, round(val * len(digests)))}
    rows: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        rows.setdefault(digest, []).append(row)
    splits = ["train"] * len(digests)
    for digest in sorted(rows, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest()):
        split = next((split for split, count in wanted.items() if count > 0), "train")
        for row in rows[digest]:
            splits[row] = split
        if split in wanted:
            wanted[split] -= len(rows[digest])
    return splits


def _place(key: str, value: str | None) -> Path:
    if value is None:
        raise UserError(f"folder.{key} in params.yaml: null, expected a path; or -S folder.{key}=PATH")
    return setting_path(value)


def _ids(names: Sequence[str]) -> dict[str, str]:
    stems = {name: Path(name).with_suffix("").as_posix() for name in names}
    counts = Counter([*stems.values(), *names])  # of a.jpg and a.jpg.png neither may be called a.jpg but the first
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}
