"""Tables of captions as people write them, and the token files of Flickr8k and Flickr30k.

The csv module extends an unclosed quotation mark to the next mark, lines later, and reads a comma in a sentence as a
new column. Here a cell is quoted (RFC 4180) only if its closing mark is followed by a delimiter or the end of the line;
a caption may hold delimiters where it is clear which cells are its parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

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


class Cell(NamedTuple):
    """A cell without its quotation marks, whether it had any, and its span in the text of the row."""

    value: str
    quoted: bool
    start: int
    end: int


def table_rows(path: Path, text: str) -> Rows:
    """Rows of a file with a header line, or of ``name#number<TAB>caption`` without one.

    Raises:
        UserError: neither; or a column is there twice.
    """
    lines = split_lines(text)
    number = next((number for number, line in enumerate(lines) if line.strip()), 0)
    header = lines[number] if lines else ""
    for delimiter in DELIMITERS:
        names = [cell.value for cell in cut_cells(header[:LONGEST_ROW], delimiter)]
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
    number += 1
    while number < len(lines):
        used = _lines_of_row(lines, number, delimiter, own["image"])
        row = "\n".join(lines[number : number + used])
        if row.strip():
            yield f"line {number + 1}", _row(row, len(names), own, delimiter)
        number += used


def _row(text: str, width: int, columns: dict[str, int], delimiter: str) -> dict[str, str] | str:
    """The cells by ``columns``, or the problem; surplus cells belong to the caption where no other can hold them."""
    if len(text) > LONGEST_ROW:
        return f"{len(text):,} characters, expected at most {LONGEST_ROW:,}"
    cells, caption = cut_cells(text, delimiter), columns["caption"]
    while len(cells) > width and not cells[-1].value:  # a spreadsheet fills rows up
        cells.pop()
    values, extra = [cell.value for cell in cells], len(cells) - width
    if extra < 0:
        return f"too few columns: {len(values)}, expected {width}"
    if extra:
        others = set(range(width)) - set(columns.values())
        clear = all(position < caption and _NUMBER.fullmatch(values[position]) for position in others)
        if not clear or cells[caption].quoted:
            return f"{len(values)} columns, expected {width}; a caption that holds {delimiter!r} must be quoted"
        whole = text[cells[caption].start : cells[caption + extra].end].strip()
        values[caption : caption + extra + 1] = [whole]
    return {key: values[position] for key, position in columns.items()}


def _token_rows(lines: Sequence[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            token = _TOKEN.fullmatch(line)
            row = {"image": token[1], "caption": token[3]} if token else "expected name#number<TAB>caption"
            yield f"line {number}", row


@cache
def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    mark, blank = re.escape(delimiter), " *" if delimiter == "\t" else r"[ \t]*"
    quoted = re.compile(rf'{blank}"((?:[^"]++|"")*+)"{blank}(?={mark}|\Z)')
    return quoted, re.compile(rf"[^{mark}]*")


def cut_cells(text: str, delimiter: str) -> list[Cell]:
    """The cells of a line, or of the lines that a quoted cell spans."""
    quoted, plain = _patterns(delimiter)
    cells, start = [], 0
    while start <= len(text):
        marked = quoted.match(text, start)
        cell = marked or plain.match(text, start)
        value = marked[1].replace('""', '"') if marked else cell[0]
        cells.append(Cell(value.strip(), marked is not None, *cell.span()))
        start = cell.end() + 1
    return cells


def _lines_of_row(lines: Sequence[str], number: int, delimiter: str, image: int) -> int:
    """Lines of the row that begins here: 1, or those up to the end of a quoted cell.

    A quoted cell extends over the next lines if it is closed there before a line that is a row of its own: one with the
    name of an image in its column ``image``. Else its mark is a part of the text.
    """
    text = lines[number]
    if len(text) > LONGEST_ROW or not _left_open(text, delimiter):
        return 1
    for used, line in enumerate(lines[number + 1 : number + LONGEST_CELL], start=2):
        text = f"{text}\n{line}"
        if len(text) > LONGEST_ROW:
            return 1
        cells = cut_cells(line, delimiter)
        if len(cells) > max(image, 1) and _IMAGE_NAME.search(cells[image].value):
            return 1
        if '"' in line and not _left_open(text, delimiter):
            return used
    return 1


def _left_open(text: str, delimiter: str) -> bool:
    """Whether a cell begins with a quotation mark and no other mark of the text may close it."""
    if '"' not in text:
        return False
    opening = re.compile(' *"')
    starts = [cell.start for cell in cut_cells(text, delimiter) if not cell.quoted and opening.match(text, cell.start)]
    return bool(starts) and '"' not in text[starts[-1] :].lstrip(" ")[1:].replace('""', "")  # only the last can be open
