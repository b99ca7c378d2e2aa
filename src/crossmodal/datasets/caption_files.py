"""Captions of a folder of images; the suffix tells the layout, and the content of a .json.

    captions.csv, .tsv, .txt   image,caption,split              one caption a row; comma, semicolon, tab or |
    captions.token, .txt       a.jpg#0<TAB>...                  the text of Flickr8k and Flickr30k, without a header
    captions.jsonl             {"image": "a.jpg", "captions": ["...", "..."], "split": "train"}   or "caption": "..."
    captions.json              {"images": [{"id": 1, "file_name": "a.jpg", "split": "train"}],                COCO's
                                "annotations": [{"image_id": 1, "caption": "..."}]}
                               {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "..."}]}]}
                               [{"image": "a.jpg", "caption": "..." or ["...", "..."]}]              ALBEF's and BLIP's

Each may be packed by gzip (captions.jsonl.gz).
``split`` may be left out everywhere. Names in COLUMNS that other tools give these columns are known too.
"""

from __future__ import annotations

import ast
import contextlib
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from crossmodal.datasets.archives.unpack import leads_out
from crossmodal.datasets.caption_columns import HALF_A_CHARACTER, LONE_SURROGATE
from crossmodal.datasets.caption_json import document_rows, line_rows
from crossmodal.datasets.delimited import table_rows
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.files.text_files import read_text
from crossmodal.terminal import warn

_SYNONYMS = {
    "train": ("train", "training", "restval"),  # restval: COCO's val images that Karpathy's splits train with
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}
SPLITS = {name: split for split, names in _SYNONYMS.items() for name in names}
READERS = dict.fromkeys((".csv", ".tsv", ".txt", ".token"), table_rows) | {".jsonl": line_rows, ".json": document_rows}
LONGEST_CAPTION = 2**16  # characters
_STRING = re.compile(r"""\s*('(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")\s*(,?)""", re.DOTALL)


@dataclass
class Listed:
    """Split and captions of one image; ``split`` is None where the file has none.

    left_out: captions that were left out, each a bad item of its own.
    """

    split: str | None = None
    captions: list[str] = field(default_factory=list)
    left_out: int = 0


def read_caption_file(path: Path, folder: Path | None = None) -> tuple[dict[str, Listed], list[Skipped]]:
    """Images by name, in the order in which they come first, and what was left out.

    Left out are: a row without a name or of another form, a name that leads out of the folder, an empty caption, text
    with half a character or a NUL in it, an unknown split or a second one of the image, and the images
    without a split where others have one. The same sentence of the same image again stays, as it does in published
    datasets, and is counted in a note. Names that differ only in how accents are encoded are one, as first written.

    Args:
        folder: of the images; an absolute path below it is taken as relative to it.

    Raises:
        UserError: not there, not text, another kind of file, or without the columns that are needed.
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    reader = READERS.get(name.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: expected a name that ends in {', '.join(READERS)}, or in these and .gz")
    listing, skipped = Listing(folder), []
    for position, row in reader(path, read_text(path)):
        if problem := row if isinstance(row, str) else listing.add(row, position):
            skipped.append(Skipped(f"{path.name} {position}", problem))
    return listing.images, skipped + listing.finish(str(path))


class Listing:
    """The rows so far. repeated: positions of captions that their image has already.

    exact: names are those of files as they are, not what people and tools write of them.
    """

    def __init__(self, folder: Path | None, *, exact: bool = False) -> None:
        self._exact = exact
        self.images: dict[str, Listed] = {}
        self.repeated: list[str] = []
        self._root = f"{folder.absolute().as_posix()}/" if folder else None
        self._names: dict[str, str] = {}

    def add(self, row: dict[str, Any], position: str) -> str | None:
        """Note what one row says; returns what is wrong with it, if anything."""
        name, caption, split = row.get("image"), row.get("caption"), row.get("split")
        captions = caption if isinstance(caption, list) else _captions_of_cell(caption)
        if not isinstance(name, str) or not name.strip():
            return "no name of an image"
        if LONE_SURROGATE.search(name):
            return HALF_A_CHARACTER
        if captions is None:
            return f"a list of captions of {name} that cannot be read: {caption.strip()[:60]!r}"
        if not all(isinstance(text, str) for text in captions):
            return f"no caption of {name}"
        name = self._plain(name)
        if reason := leads_out(name):
            absolute = PurePosixPath(name).is_absolute() or re.match("[A-Za-z]:", name)
            return f"{name!r} {'is an absolute path, expected one below folder.images' if absolute else reason}"
        split = split.strip().lower() or None if isinstance(split, str) else split
        if split is not None and split not in SPLITS:
            return f"split {row['split']!r} of {name}, expected train, val or test"
        image = self.images.setdefault(name, Listed())
        if split is not None:
            if image.split not in (None, SPLITS[split]):
                return f"{name} is in split {image.split}, here in {SPLITS[split]}"
            image.split = SPLITS[split]
        problems = [problem for text in captions if (problem := self._add_caption(name, text, position))]
        image.left_out += len(problems)
        return "; ".join(dict.fromkeys(problems)) or None

    def finish(self, source: str) -> list[Skipped]:
        """Drop images without a split where others have one, and return them; warn of repeated captions."""
        if self.repeated:
            warn(
                f"{source}: {len(self.repeated)} captions repeat one of the same image and are kept, "
                f"{self.repeated[0]} for one"
            )
        if not any(image.split for image in self.images.values()):
            return []
        without = [name for name, image in self.images.items() if not image.split]
        for name in without:
            del self.images[name]
        return [Skipped(name, "no split, but others have one") for name in without]

    def _plain(self, name: str) -> str:
        """Relative, with forward slashes, as it was written first."""
        if self._exact:
            return name
        name = name.strip().replace("\\", "/")
        if self._root and name.startswith(self._root):
            name = name[len(self._root) :]
        name = PurePosixPath(name).as_posix()
        return self._names.setdefault(unicodedata.normalize("NFC", name), name)

    def _add_caption(self, name: str, text: str, position: str) -> str | None:
        if LONE_SURROGATE.search(text):
            return HALF_A_CHARACTER
        if "\0" in text:
            return f"a NUL character in a caption of {name}"
        text = " ".join(text.split())
        if not text:
            return f"empty caption of {name}"
        if len(text) > LONGEST_CAPTION:
            return f"caption of {name} has {len(text):,} characters, expected at most {LONGEST_CAPTION:,}"
        own = self.images[name].captions
        if text in own:
            self.repeated.append(position)
        own.append(text)
        return None


def _captions_of_cell(cell: Any) -> list[Any] | None:
    """The sentences of a list as pandas and NumPy write it, else the cell alone; None of a damaged list."""
    text = cell.strip() if isinstance(cell, str) else ""
    if not re.match(r"[\[(]\s*(['\"\[]|\])", text) or text[-1] not in "])":
        return [cell]
    with contextlib.suppress(UserError):
        values = parse_json(text, "", halves=True)
        return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else None
    values, end, commas = [], 1, 0
    while found := _STRING.match(text, end):
        values.append(found[1])
        commas += len(found[2])
        end = found.end()
    brackets = text[0] + text[end:].strip()
    if text[0] == "(" and (brackets != "()" or not commas):  # a sentence in brackets
        return [cell]
    try:
        return [ast.literal_eval(value) for value in values] if brackets in ("[]", "()") else None
    except (ValueError, SyntaxError):  # an invalid escape
        return None
