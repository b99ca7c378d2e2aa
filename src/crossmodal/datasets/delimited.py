"""Tables of captions as people write them, and the token files of Flickr8k and Flickr30k.

The csv module takes a quotation mark that is never closed for one that goes on to the next mark, lines later, and a
comma in a sentence for a new column. Here a cell is quoted as RFC 4180 says if its closing mark is followed by a
delimiter or the end of the line, and is the text as it is otherwise; a caption may hold delimiters where it is clear
which cells are its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crossmodal.datasets.caption_columns import Rows, find_columns
from crossmodal.datasets.decode import SUFFIXES
from crossmodal.errors import UserError
from crossmodal.files.text_files import split_lines

DELIMITERS = ",;\t|"
LONGEST_CELL = 50  # lines that one quoted cell may span
LONGEST_ROW = 2**17  # characters, as in the csv module
_IMAGE_NAME = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})[\"\s]*$", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.]*")
_TOKEN = re.compile(r"([^\t]*\S)#(\d{1,9})[ ]*\t(.*)", re.DOTALL)


@dataclass(frozen=True)
class Cells:
    """One row: ``values`` without quotation marks, whether they had any, and where in ``text`` they are."""

    text: str
    values: tuple[str, ...]
    quoted: tuple[bool, ...]
    spans: tuple[tuple[int, int], ...]

    def joined(self, first: int, last: int) -> str:
        """The cells ``first`` to ``last`` as they are written, delimiters included."""
        return self.text[self.spans[first][0] : self.spans[last][1]].strip()


def table_rows(path: Path, text: str) -> Rows:
    """Rows of a file with a header line, or of ``name#number<TAB>caption`` without one.

    Raises:
        UserError: neither; or a column is there twice.
    """
    lines = split_lines(text)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    header = lines[first] if lines else ""
    for delimiter in DELIMITERS:
        names = cut_cells(header[:LONGEST_ROW], delimiter).values
        columns = find_columns(names)
        if {"image", "caption"} <= set(columns):
            break
    else:
        if _TOKEN.fullmatch(header):
            yield from _token_rows(lines)
            return
        hint = "; NUL characters, perhaps UTF-16: save it as UTF-8" if "\0" in header else ""
        raise UserError(f"{path}: no columns image and caption in the first line, found {header.strip()[:100]!r}{hint}")
    for key, positions in columns.items():
        if len(positions) > 1:
            twice = ", ".join(repr(names[position]) for position in positions)
            raise UserError(f"{path}: the first line names the {key} {len(positions)} times ({twice}), expected once")
    own = {key: position for key, (position,) in columns.items()}
    for number, cells in read_rows(lines[first + 1 :], delimiter, own["image"]):
        yield f"line {first + number + 2}", _row(cells, len(names), own, delimiter)


def _row(cells: Cells | str, width: int, columns: dict[str, int], delimiter: str) -> dict[str, str] | str:
    """The cells by ``columns``; those that are too many belong to the caption where nothing else can hold them."""
    if isinstance(cells, str):
        return cells
    values, extra, caption = list(cells.values), len(cells.values) - width, columns["caption"]
    while extra > 0 and not values[-1]:  # a spreadsheet fills rows up
        values.pop()
        extra -= 1
    if extra < 0:
        return f"too few columns: {len(values)}, expected {width}"
    if extra:
        others = set(range(width)) - set(columns.values())
        clear = all(position < caption and _NUMBER.fullmatch(values[position]) for position in others)
        if not clear or cells.quoted[caption]:
            return f"{len(values)} columns, expected {width}; a caption that holds {delimiter!r} must be quoted"
        values[caption : caption + extra + 1] = [cells.joined(caption, caption + extra)]
    return {key: values[position] for key, position in columns.items()}


def _token_rows(lines: Sequence[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        token = _TOKEN.fullmatch(line)
        row = {"image": token[1], "caption": token[3]} if token else "expected name#number<TAB>caption"
        yield f"line {number}", row


@cache
def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    mark, blank = re.escape(delimiter), " *" if delimiter == "\t" else r"[ \t]*"
    quoted = re.compile(rf'{blank}"((?:[^"]++|"")*+)"{blank}(?={mark}|\Z)')
    return quoted, re.compile(rf"[^{mark}]*")


def cut_cells(text: str, delimiter: str) -> Cells:
    """The cells of a line, or of the lines that a quoted cell spans."""
    quoted, plain = _patterns(delimiter)
    found, start = [], 0
    while start <= len(text):
        cell = quoted.match(text, start)
        found.append((cell, cell is not None) if cell else (plain.match(text, start), False))
        start = found[-1][0].end() + 1
    return Cells(
        text,
        tuple((cell[1].replace('""', '"') if marks else cell[0]).strip() for cell, marks in found),
        tuple(marks for _, marks in found),
        tuple(cell.span() for cell, _ in found),
    )


def read_rows(lines: Sequence[str], delimiter: str, image: int) -> Iterator[tuple[int, Cells | str]]:
    """Index of the first line of every row that is not empty, and its cells or what is wrong with it.

    A quoted cell goes on over the next lines if it is closed there before a line that is a row of its own: one with
    the name of an image in its column ``image``. Else its mark is a part of the text.
    """
    number = 0
    while number < len(lines):
        if len(lines[number]) > LONGEST_ROW:
            yield number, f"{len(lines[number]):,} characters, expected at most {LONGEST_ROW:,}"
            number += 1
            continue
        used = _lines_of_row(lines, number, delimiter, image)
        text = "\n".join(lines[number : number + used])
        if text.strip():
            yield number, cut_cells(text, delimiter)
        number += used


def _lines_of_row(lines: Sequence[str], number: int, delimiter: str, image: int) -> int:
    """Lines of the row that begins here: 1, or those up to the end of a quoted cell."""
    text = lines[number]
    if not _left_open(text, delimiter):
        return 1
    for used, line in enumerate(lines[number + 1 : number + LONGEST_CELL], start=2):
        text = f"{text}\n{line}"
        if len(text) > LONGEST_ROW:
            return 1
        cells = cut_cells(line, delimiter).values
        if len(cells) > max(image, 1) and _IMAGE_NAME.search(cells[image]):
            return 1
        if '"' in line and not _left_open(text, delimiter):
            return used
    return 1


def _left_open(text: str, delimiter: str) -> bool:
    """Whether a cell begins with a quotation mark and no other mark of the text may close it."""
    if '"' not in text:
        return False
    cells = cut_cells(text, delimiter)
    starts = [start for (start, _), marks in zip(cells.spans, cells.quoted, strict=True) if not marks]
    opening = re.compile(' *"')
    start = next((start for start in reversed(starts) if opening.match(text, start)), None)  # only the last can be
    return start is not None and '"' not in text[start:].lstrip(" ")[1:].replace('""', "")
