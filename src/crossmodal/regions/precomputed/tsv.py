"""The TSV files of bottom-up attention: a line an image, arrays in base64, little-endian.

Two layouts, told apart by the number of columns (neither has a header line):

    6   image_id  image_w  image_h  num_boxes  boxes  features                        bottom-up-attention
    10  img_id  img_h  img_w  objects_id  objects_conf  attrs_id  attrs_conf  num_boxes  boxes  features       LXMERT

Lines are read where they are: a first pass over the files notes where each image's is, and leaves out lines that are
cut off, as an extraction leaves them that was killed and went on.
"""

from __future__ import annotations

import base64
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.text_files import require_regular_file
from crossmodal.regions.precomputed.rows import as_features, as_shares, check_aspect, image_key, record_rows
from crossmodal.runtime import progress

log = logging.getLogger(__name__)

_LONGEST_COUNT = 7  # digits
_LONGEST_NAME = 4096  # bytes
LONGEST_LINE = 64 * 2**20  # bytes; 100 regions of 2,048 values are 1.1 million
_LAYOUTS = {
    6: ("image", "width", "height", "count", "boxes", "features"),
    10: ("image", "height", "width", "classes", "scores", "attributes", "_", "count", "boxes", "features"),
}


@dataclass(frozen=True)
class TsvRow:
    """One line: boxes (R, 4) in pixels, features (R, D) float32; the rest (R,), None in the layout of 6 columns."""

    image: str
    width: float
    height: float
    boxes: np.ndarray
    features: np.ndarray
    classes: np.ndarray | None = None
    attributes: np.ndarray | None = None
    scores: np.ndarray | None = None


def parse_line(line: bytes, where: str) -> TsvRow:
    """Decode one line; ``where`` names it in errors.

    Raises:
        UserError: neither layout; a number, a base64 text or the length of an array is wrong.
    """
    values = line.rstrip(b"\r\n").split(b"\t")
    if len(values) not in _LAYOUTS:
        raise UserError(f"{where}: {len(values)} columns, expected 6 (bottom-up attention) or 10 (LXMERT)")
    fields = dict(zip(_LAYOUTS[len(values)], values, strict=True))
    try:
        width, height, count = float(fields["width"]), float(fields["height"]), int(fields["count"])
        arrays = {
            name: np.frombuffer(base64.b64decode(fields[name], validate=True), dtype).reshape(shape)
            for name, dtype, shape in (
                ("boxes", "<f4", (count, 4)),
                ("features", "<f4", (count, -1)),
                ("classes", "<i8", (count,)),
                ("attributes", "<i8", (count,)),
                ("scores", "<f4", (count,)),
            )
            if name in fields
        }
    except ValueError as error:
        raise UserError(f"{where}: not a row of region features ({error})") from None
    return TsvRow(fields["image"].decode("utf-8", "replace"), width, height, **arrays)


def damage(line: bytes) -> str | None:
    """Why a line cannot be a row, told by the lengths of its columns alone: cut off, or of neither layout."""
    values = line.rstrip(b"\r\n").split(b"\t")
    if len(values) not in _LAYOUTS:
        return f"{len(values)} columns, expected 6 (bottom-up attention) or 10 (LXMERT)"
    fields = dict(zip(_LAYOUTS[len(values)], values, strict=True))
    count = fields["count"].strip()
    if not count.isdigit() or not 0 < len(count) < _LONGEST_COUNT or not int(count):
        return f"not a row of region features (number of regions {count[:20].decode('utf-8', 'replace')!r})"
    regions, boxes, features = int(count), fields["boxes"], fields["features"]
    expected = 4 * -(-16 * regions // 3)  # base64 of four float32 each
    if len(boxes) != expected:
        return f"not a row of region features (boxes of {len(boxes):,} characters, expected {expected:,}: cut off?)"
    size = len(features) // 4 * 3 - features[-2:].count(b"=")
    if len(features) % 4 or not size or size % (4 * regions):
        return f"not a row of region features ({size:,} bytes of features do not go by {regions} regions: cut off?)"
    return None


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, offset and bytes of every line that is not empty, one at a time.

    Raises:
        UserError: the file cannot be read, or is not text of lines.
    """
    require_regular_file(path)
    try:
        with path.open("rb") as file:
            number, offset = 0, 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: longer than {LONGEST_LINE} bytes, not a TSV of features")
                if line.strip():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None


class TsvReader:
    """A TSV file, or all files of a folder whose names hold ".tsv". A FeatureReader.

    Of an image that is there several times the first whole line counts. An image with damaged lines alone is missing.

    Raises:
        UserError: no file there, no whole line in them, or lines of both layouts.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        files = sorted(file for file in path.glob("*.tsv*") if file.is_file()) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: holds no file named *.tsv")
        self.dataset = dataset
        self._lines: dict[int, list[tuple[Path, int, int]]] = defaultdict(list)  # row -> file, line number, offset
        self.problems: dict[int, str] = {}
        rows, columns, damaged = record_rows(dataset), None, []
        with progress(
            total=sum(file.stat().st_size for file in files if file.exists()), unit="B", unit_scale=True
        ) as bar:
            for file in files:
                for number, offset, line in read_lines(file):
                    bar.update(len(line))
                    row = rows.get(image_key(line.partition(b"\t")[0][:_LONGEST_NAME].decode("utf-8", "replace")))
                    if reason := damage(line):
                        damaged.append(f"{file.name}, line {number}: {reason}")
                        if row is not None:
                            self.problems.setdefault(row, damaged[-1])
                        continue
                    found = line.count(b"\t") + 1
                    columns = columns or found
                    if found != columns:
                        raise UserError(f"{file}, line {number}: {found} columns, expected {columns}")
                    if row is not None:
                        self._lines[row].append((file, number, offset))
        if damaged and columns is None:
            raise UserError(f"{path}: no whole line; {damaged[0]}")
        if damaged:
            log.warning("note: %s: %d damaged lines are left out, %s for one", path, len(damaged), damaged[0])
        self.missing = [row for row in range(len(dataset.records)) if row not in self._lines]
        self.arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self._lines:
            size = self._read(next(iter(self._lines)))[0].features.shape[1]
            self.arrays = {"features": ("float16", (size,)), "boxes": ("float32", (4,))}
        if columns == 10:
            self.arrays |= {"classes": ("int16", ()), "attributes": ("int16", ()), "scores": ("float32", ())}

    def row(self, row: int) -> dict[str, np.ndarray]:
        found, where = self._read(row)
        check_aspect(self.dataset.records[row], found.width, found.height, where)
        values = {"features": as_features(found.features, where, self.arrays["features"][1][0])}
        values["boxes"] = as_shares(found.boxes, found.width, found.height, len(found.features), where)
        others = {name: getattr(found, name) for name in ("classes", "attributes", "scores") if name in self.arrays}
        return values | others

    def _read(self, row: int) -> tuple[TsvRow, str]:
        problem = UserError(f"row {row} has no line")
        for path, number, offset in self._lines[row]:
            with path.open("rb") as file:
                file.seek(offset)
                line = file.readline(LONGEST_LINE)
            where = f"{path}, line {number}"
            try:
                return parse_line(line, where), where
            except UserError as error:
                problem = error
        raise problem
