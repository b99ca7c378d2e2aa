"""The text archive of Flickr8k: captions by image and number, and the official splits, each a file of names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from crossmodal.datasets.archives.unpack import read_members
from crossmodal.datasets.assemble import SPLITS, Entry
from crossmodal.datasets.published import PUBLISHED
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError

MEMBERS = PUBLISHED["flickr8k"].members
CAPTIONS = MEMBERS["captions"]
LONGEST_NUMBER = 9  # digits of a caption's number; it is 0 to 4


def read_flickr8k(path: Path, *, max_images: int) -> tuple[list[Entry], list[Skipped]]:
    """Entries in the order of the splits train, val, test and, inside a split, of its file; and what was left out.

    ``max_images`` above 0 keeps the first so many names of each split file. Left out are lines of captions that are
    empty or of another form; captions of images in no split are no bad items. An image may have fewer than five
    captions.

    Raises:
        UserError: the archive cannot be read; a member is missing, not text, or lists an image twice.
    """
    content = read_members(path, MEMBERS.values())
    lines = {}
    for member in MEMBERS.values():
        try:
            # Not splitlines: a caption may hold a character that Unicode calls a line break.
            lines[member] = re.split(r"\r\n?|\n", content[member].decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, member {member}: not UTF-8 text ({error})") from None
    splits: dict[str, str] = {}
    for split in SPLITS:
        source = f"{path}, member {MEMBERS[split]}"
        names = [line.strip() for line in lines[MEMBERS[split]] if line.strip()]
        for name in names[: max_images or None]:
            if name in splits:
                raise UserError(f"{source}: {name} is listed twice (before in {splits[name]})")
            if "/" in name or "\\" in name or name in (".", ".."):
                raise UserError(f"{source}: expected file names, found {name!r}")
            splits[name] = split
    captions, skipped = parse_captions(lines[CAPTIONS], set(splits))
    left_out = Counter(item.item.rpartition("#")[0] for item in skipped)
    entries = [
        Entry(Path(name).stem, name, split, captions.get(name, ()), left_out[name]) for name, split in splits.items()
    ]
    return entries, skipped


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
