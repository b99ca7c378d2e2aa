"""Files of compositional tests: images with captions of which one is right, or two images with a caption each.

A file is JSON (a list of examples, or an object of them by name), a JSON example a line (.jsonl), or a table with a
header (.csv, .tsv). Each example is recognised by its keys:

    Winoground    image_0, image_1, caption_0, caption_1; kind: collapsed_tag      (arXiv 2204.03162)
    SugarCrepe    filename, caption, negative_caption                             (arXiv 2306.14610)
    ARO           image_path, true_caption, false_caption, bbox_x, bbox_y, bbox_w, bbox_h; kind: relation_name or
                  attributes; the image is cropped to the box                     (arXiv 2210.01936)
    VALSE         image_file, caption, foil, mturk; kind: linguistic_phenomena; only foils that two of three annotators
                  took for wrong                                                  (arXiv 2112.07566)
    any other     image, captions (a list; in a table caption_0, caption_1, ...), right (from 0; 0 without), kind
                  or image, caption, foil
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.files.text_files import read_text, split_lines

IMAGE = ("image", "filename", "image_path", "image_file")
RIGHT = ("caption", "true_caption")
WRONG = ("negative_caption", "false_caption", "foil")
BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
SUFFIXES = ("", ".png", ".jpg", ".jpeg")  # Winoground's names have none
_LARGEST = 2**24  # pixels of a box, in each direction
VOTES = 2  # of three annotators, by which VALSE calls a foil valid
EXPECTED = "expected the keys of Winoground, SugarCrepe, ARO or VALSE, or image and captions"


@dataclass(frozen=True)
class Shown:
    """An image of an example; ``box`` (x, y, width, height) in pixels of the upright image: only that part of it."""

    path: Path
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Contrast:
    """An example: of one image the caption number ``right`` is right; of two images caption i is image i's."""

    name: str
    kind: str
    images: tuple[Shown, ...]
    captions: tuple[str, ...]
    right: int = 0


def read_contrasts(path: Path, images: Path | None = None) -> list[Contrast]:
    """The examples of a file, in its order.

    Args:
        images: folder that names of images are relative to; None: that of the file.

    Raises:
        UserError: not such a file, an image is missing, or examples with one image and with two are mixed.
    """
    folder = path.parent if images is None else images
    found = []
    for name, item in _items(path):
        if not isinstance(item, dict):
            raise UserError(f"{path}, {name}: {EXPECTED}")
        votes = item.get("mturk")
        if isinstance(votes, dict) and not _number(votes.get("caption"), f"{path}, {name}: mturk.caption") >= VOTES:
            continue
        found.append(_contrast(item, f"{path}, {name}", folder))
    if not found:
        raise UserError(f"{path}: no examples; {EXPECTED}")
    if len({len(contrast.images) for contrast in found}) > 1:
        raise UserError(f"{path}: examples of one image and of two; give them in two files")
    return found


def _contrast(item: dict[str, Any], name: str, folder: Path) -> Contrast:
    kind = next((item[key] for key in ("kind", "collapsed_tag", "relation_name", "linguistic_phenomena", "attributes")
                 if item.get(key)), "")  # fmt: skip
    kind = "_".join(map(str, kind)) if isinstance(kind, list) else str(kind)
    numbered = sorted((int(key[8:]), key) for key in item if re.fullmatch(r"caption_\d{1,2}", key) and item[key])
    if [number for number, _ in numbered] != list(range(len(numbered))):  # ``right`` would mean another one
        found = ", ".join(key for _, key in numbered)
        raise UserError(f"{name}: {found}; expected captions from caption_0, none of them empty or twice")
    captions = [item[key] for _, key in numbered]
    if {"image_0", "image_1"} <= item.keys() and len(captions) == 2:
        shown = tuple(_shown(item[key], None, name, folder) for key in ("image_0", "image_1"))
        return Contrast(name, kind, shown, _texts(captions, name))
    image = next((item[key] for key in IMAGE if key in item), None)
    right, wrong = ([item[key] for key in keys if key in item] for keys in (RIGHT, WRONG))
    captions = item.get("captions", captions) or (right[:1] + wrong[:1] if right and wrong else [])
    if image is None or not isinstance(captions, list) or len(captions) < 2:
        raise UserError(f"{name}: {EXPECTED}; found {', '.join(map(str, item)) or 'none'}"[:400])
    chosen = _number(item.get("right") or 0, f"{name}: right")
    if chosen not in range(len(captions)):
        raise UserError(f"{name}: right {chosen:g}, expected 0 to {len(captions) - 1}")
    box = tuple(_number(item.get(key), f"{name}: {key}") for key in BOX) if set(BOX) & item.keys() else None
    return Contrast(name, kind, (_shown(image, box, name, folder),), _texts(captions, name), int(chosen))


def _texts(captions: list[Any], name: str) -> tuple[str, ...]:
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip():
            raise UserError(f"{name}: caption {caption!r:.60}, expected text")
    return tuple(captions)


def _shown(image: Any, box: tuple[float, ...] | None, name: str, folder: Path) -> Shown:
    if not isinstance(image, str) or not image:
        raise UserError(f"{name}: image {image!r:.60}, expected the name of a file")
    if box is not None and not (min(box) >= 0 and min(box[2:]) > 0 and max(box) <= _LARGEST):
        raise UserError(
            f"{name}: box {box}, expected x and y from 0 and a width and height above 0, all of at most {_LARGEST:,}"
        )
    for suffix in SUFFIXES:
        path = folder / (image + suffix)
        try:
            if path.is_file():
                return Shown(path, box)
        except OSError as error:  # a name that is too long
            raise UserError(f"{name}: image {image!r:.60}: {error.strerror}") from None
    raise UserError(f"{name}: no file {folder / image}; --images names the folder")


def _number(value: Any, name: str) -> float:
    """A finite number, or a UserError."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # the last of integers with hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        shown = str(value) if isinstance(value, float) else f"{value!r:.40}"
        raise UserError(f"{name} {shown}, expected a number")
    return number


def _table(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table, each named by the line that it begins in.

    Raises:
        UserError: a column is there twice, a row has more or fewer cells, or a quotation mark is not closed in its row.
    """
    rows = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    begin = 0  # lines before the row
    try:
        for cells in rows:
            name, used, begin = f"line {begin + 1}", lines[begin : rows.line_num], rows.line_num
            if not "".join(cells).strip():
                continue
            if not names:
                names = cells
                if twice := [cell for cell in names if names.count(cell) > 1 and cell]:
                    raise UserError(f"{path}, {name}: column {twice[0]!r:.60} twice")
                continue
            if any(line.count(delimiter) >= len(names) - 1 for line in used[1:]):
                raise UserError(f"{path}, {name}: a quotation mark that is not closed in its row")
            while len(cells) > len(names) and not cells[-1]:  # a spreadsheet fills rows up
                cells.pop()
            if len(cells) != len(names):
                raise UserError(
                    f"{path}, {name}: {len(cells)} columns, expected {len(names)}; a caption that holds {delimiter!r} "
                    "must be quoted"
                )
            yield name, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {begin + 1}: not readable as a row of a table ({error})") from None


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """The examples with their names, not looked at."""
    text = read_text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _table(path, split_lines(text), "\t" if path.suffix.lower() == ".tsv" else ",")
    elif path.suffix.lower() == ".jsonl":
        for number, line in enumerate(split_lines(text), start=1):
            if line.strip():
                yield f"line {number}", parse_json(line, f"{path}, line {number}", nan=True)
    else:
        content = parse_json(text, str(path), nan=True)
        if isinstance(content, dict):
            yield from ((f"example {key}", item) for key, item in content.items())
        elif isinstance(content, list):
            yield from ((f"example {number}", item) for number, item in enumerate(content))
        else:
            raise UserError(f"{path}: {EXPECTED}")
