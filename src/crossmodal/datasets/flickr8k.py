"""Flickr8k: 8,000 photographs with five captions each, official split 6,000 / 1,000 / 1,000.

Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", JAIR 47, 2013.

The authors' own address is gone; the release named below is the copy in common use. Its md5 sums are those
that two unrelated projects (the R package torchvision, and a CMake script) check the same two addresses
against; a sha256 of the two files is published nowhere that we know. The photographs are under Flickr's
terms, for research and education.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossmodal.datasets.archives.obtain import Archive, obtain
from crossmodal.datasets.archives.unpack import plain_name, unpack
from crossmodal.datasets.assemble import Entry, check_images, write_entries
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.settings.params import Download, Flickr8k

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
PHOTOGRAPHS = Archive(
    "Flickr8k_Dataset.zip",
    (f"{RELEASE}/Flickr8k_Dataset.zip",),
    ("md5:f18a1e2920de5bd84dae7cf08ec78978",),
    size=1_100_000_000,  # about
)
TEXT = Archive(
    "Flickr8k_text.zip",
    (f"{RELEASE}/Flickr8k_text.zip",),
    ("md5:bf6c1abcb8e4a833b7f922104de18627",),
    size=2_300_000,  # about
)
CAPTIONS = "Flickr8k.token.txt"
LONGEST_NUMBER = 9  # digits of a caption's number; it is 0 to 4
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def build_flickr8k(folder: Path, settings: Flickr8k, download: Download, cache_folder: Path) -> None:
    """Write Flickr8k as a dataset folder.

    Records are in the order of the splits train, val, test and, inside a split, of its file. ``max_images``
    above 0 keeps the first so many names of each split file. Images keep their bytes; each is decoded once
    in full. Left out and listed in the manifest are: an image that is missing or does not decode (its
    captions go with it), an image without captions, a line of captions that is empty or of another form.
    Images in no split are not part of the dataset, so their captions are no bad items. An image may be left
    with fewer than five captions, never with none.

    Raises:
        UserError: an archive cannot be obtained or read; a member is missing, not text, or lists an image
            twice; more than ``download.max_bad`` items were left out; a split would be empty.
    """
    text = obtain(TEXT, cache_folder, download.mirror, offline=download.offline)
    photographs = obtain(PHOTOGRAPHS, cache_folder, download.mirror, offline=download.offline)
    members = _read_text(text.path)
    splits = _parse_splits(text.path, members, settings.max_images)
    captions, skipped = parse_captions(members[CAPTIONS], set(splits))

    images = folder / "images"
    damaged = unpack(photographs.path, images, lambda member: plain_name(member, splits), tolerant=True)
    absent = {name: f"not in {PHOTOGRAPHS.name}" for name in splits if not (images / name).is_file()}
    left_out = Counter(item.item.rpartition("#")[0] for item in skipped)
    entries = [
        Entry(Path(name).stem, name, split, captions.get(name, ()), left_out[name]) for name, split in splits.items()
    ]
    write_entries(
        folder,
        "flickr8k",
        entries,
        check_images([images / name for name in splits]),
        reasons=absent | {item.item: item.reason for item in damaged},
        skipped=skipped,
        max_bad=download.max_bad,
        no_captions=f"no caption in {CAPTIONS}",
        splits={split: f"{text.path}, member {member}" for split, member in SPLIT_FILES.items()},
        sources={PHOTOGRAPHS.name: photographs.source, TEXT.name: text.source},
    )


def parse_captions(lines: Iterable[str], names: set[str]) -> tuple[dict[str, tuple[str, ...]], list[Skipped]]:
    """Captions of the images in ``names``, from lines ``name#i<TAB>caption``, in the order of i.

    Returns them with what was left out: lines of another form, empty captions, and a second caption of the
    same number. Lines about other images are passed over.
    """
    numbered: dict[str, dict[int, str]] = {}
    skipped = []
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, _, index = key.rpartition("#")
        if name and name not in names:
            continue
        if not tab or not name or not index.isdecimal() or len(index) > LONGEST_NUMBER:
            skipped.append(Skipped(f"{CAPTIONS} line {line_number}", "expected name#number<TAB>caption"))
        elif not caption.strip():
            skipped.append(Skipped(key, "empty caption"))
        elif int(index) in numbered.setdefault(name, {}):
            skipped.append(Skipped(key, f"second caption of this number, {CAPTIONS} line {line_number}"))
        else:
            numbered[name][int(index)] = caption.strip()
    captions = {name: tuple(own[index] for index in sorted(own)) for name, own in numbered.items() if own}
    return captions, skipped


def _read_text(archive_path: Path) -> dict[str, list[str]]:
    """Lines of the caption file and the three split files."""
    needed = {CAPTIONS, *SPLIT_FILES.values()}
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive_path, Path(folder), lambda member: plain_name(member, needed))
        lines = {}
        for member in (CAPTIONS, *SPLIT_FILES.values()):
            try:
                # Not splitlines: a caption may hold a character that Unicode calls a line break.
                content = (Path(folder) / member).read_text(encoding="utf-8-sig")
            except FileNotFoundError:
                raise UserError(f"{archive_path}: has no member {member}") from None
            except UnicodeDecodeError as error:
                raise UserError(f"{archive_path}, member {member}: not UTF-8 text ({error})") from None
            lines[member] = content.split("\n")
    return lines


def _parse_splits(archive_path: Path, members: Mapping[str, list[str]], max_images: int) -> dict[str, str]:
    """Split of each image name, in record order."""
    splits: dict[str, str] = {}
    for split, member in SPLIT_FILES.items():
        names = [line.strip() for line in members[member] if line.strip()]
        for name in names[: max_images or None]:
            if name in splits:
                raise UserError(f"{archive_path}, member {member}: {name} is listed twice (before in {splits[name]})")
            if "/" in name or "\\" in name or name in (".", ".."):
                raise UserError(f"{archive_path}, member {member}: expected file names, found {name!r}")
            splits[name] = split
    return splits
