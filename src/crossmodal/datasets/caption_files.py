"""Captions of a folder of images: CSV, JSON Lines or COCO JSON, told apart by the file's suffix.

    captions.csv     image,caption,split              one caption a row; separated by comma, semicolon, tab or |
    captions.jsonl   {"image": "a.jpg", "captions": ["...", "..."], "split": "train"}      or "caption": "..."
    captions.json    {"images": [{"id": 1, "file_name": "a.jpg", "split": "train"}],
                      "annotations": [{"image_id": 1, "caption": "..."}]}

``split`` may be left out everywhere. Names in COLUMNS that other tools give these columns are known too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from crossmodal.checked_json import parse_json
from crossmodal.datasets.records import Skipped
from crossmodal.datasets.unpack import leads_out
from crossmodal.errors import UserError

COLUMNS = {
    "image": ("image", "file_name", "filename", "filepath", "image_name"),
    "caption": ("caption", "captions", "text", "title", "comment"),
    "split": ("split",),
}
SPLITS = {"train": "train", "val": "val", "test": "test", "dev": "val", "valid": "val", "validation": "val"}
DELIMITERS = ",;\t|"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may hold one, UTF-8 cannot


@dataclass
class Listed:
    """What the file says of one image; ``split`` is None where it says nothing.

    left_out: captions that were left out, each a bad item of its own.
    """

    split: str | None = None
    captions: list[str] = field(default_factory=list)
    left_out: int = 0


def read_caption_file(path: Path) -> tuple[dict[str, Listed], list[Skipped]]:
    """Images by name, in the order in which they come first, and what was left out.

    Left out are: a row without a name or of another form, a name that leads out of the folder, an empty caption, the
    same caption of the same image again, text with half a character in it, a split that is none or differs from the
    image's former one, and the images without a split where others have one.

    Raises:
        UserError: not there, not text, another kind of file, or without the columns that are needed.
    """
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows, ".json": _coco_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: expected a name that ends in {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None
    images: dict[str, Listed] = {}
    skipped = []
    for place, row in reader(path, text):
        problem = row if isinstance(row, str) else _add(row, images)
        if problem:
            skipped.append(Skipped(f"{path.name} {place}", problem))
    if any(image.split for image in images.values()):
        for name in [name for name, image in images.items() if not image.split]:
            skipped.append(Skipped(name, "no split, but others have one"))
            del images[name]
    return images, skipped


def _add(row: dict[str, Any], images: dict[str, Listed]) -> str | None:
    """Note what one row says; returns what is wrong with it, if anything."""
    name, caption, split = row.get("image"), row.get("caption"), row.get("split")
    captions = caption if isinstance(caption, list) else [caption]
    if not isinstance(name, str) or not name.strip():
        return "no name of an image"
    if not all(isinstance(text, str) for text in captions):
        return f"no caption of {name}"
    if any(_LONE_SURROGATE.search(text) for text in (name, *captions)):
        return "half a character: text that was cut within an emoji, or a file name that is not UTF-8"
    name = PurePosixPath(name.strip()).as_posix()
    if leads_out(name):
        return f"{name!r} leads out of the folder"
    if split is not None and str(split).strip().lower() not in SPLITS:
        return f"split {split!r} of {name}, expected train, val or test"
    image = images.setdefault(name, Listed())
    if split is not None:
        split = SPLITS[str(split).strip().lower()]
        if image.split not in (None, split):
            return f"{name} is in split {image.split}, here in {split}"
        image.split = split
    problem = None
    for text in (" ".join(text.split()) for text in captions):
        if not text:
            problem = f"empty caption of {name}"
        elif text in image.captions:
            problem = f"the same caption of {name} again"
        else:
            image.captions.append(text)
    image.left_out += problem is not None
    return problem


_Rows = Iterator[tuple[str, dict[str, Any] | str]]  # place in the file, and the row or what is wrong with it


def _csv_rows(path: Path, text: str) -> _Rows:
    header, _, body = text.partition("\n")
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        columns = _columns(names)
        if {"image", "caption"} <= set(columns):
            break
    else:
        raise UserError(f"{path}: no columns image and caption in the first line, found {header.strip()[:100]!r}")
    rows = csv.DictReader(io.StringIO(body, newline=""), fieldnames=names, delimiter=delimiter, skipinitialspace=True)
    try:
        for row in rows:
            values = {key: row[name] for key, name in columns.items()}
            yield f"line {rows.line_num + 1}", "too few columns" if None in values.values() else values
    except csv.Error as error:
        raise UserError(f"{path}, after line {rows.line_num + 1}: not readable as CSV ({error})") from None


def _json_rows(path: Path, text: str) -> _Rows:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, str(path), dict, halves=True)
        except UserError:
            row = None
        if isinstance(row, dict):
            yield f"line {number}", {key: row[name] for key, name in _columns(row).items()}
        else:
            yield f"line {number}", "not a JSON object"


def _coco_rows(path: Path, text: str) -> _Rows:
    try:
        content = parse_json(text, str(path), halves=True)
        images = {image["id"]: image for image in content["images"]}
        annotations = list(content["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: expected COCO\'s {{"images": [{{"id", "file_name"}}], '
            f'"annotations": [{{"image_id", "caption"}}]}} ({error!r})'
        ) from None
    for image in images.values():  # in their order, and those without captions too
        yield f"image {image['id']}", {"image": image.get("file_name"), "caption": [], "split": image.get("split")}
    for number, item in enumerate(annotations):
        key = item.get("image_id") if isinstance(item, dict) else None
        image = images.get(key) if isinstance(key, int | str) else None
        if image is None:
            yield f"annotations[{number}]", "of no image in the list"
        else:
            yield f"annotations[{number}]", {"image": image.get("file_name"), "caption": item.get("caption")}


def _columns(names: Any) -> dict[str, str]:
    """Which of the names is the image, the caption and the split."""
    found = {key: next((name for name in known if name in names), None) for key, known in COLUMNS.items()}
    return {key: name for key, name in found.items() if name is not None}
