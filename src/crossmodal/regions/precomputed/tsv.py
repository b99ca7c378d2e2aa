"""The TSV files of bottom-up attention: a line per image, arrays in base64, little-endian.

Two layouts, distinguished by the number of columns (neither has a header line):

    6   image_id  image_w  image_h  num_boxes  boxes  features                        bottom-up-attention
    10  img_id  img_h  img_w  objects_id  objects_conf  attrs_id  attrs_conf  num_boxes  boxes  features       LXMERT

A first pass over the files notes the offset of each image's line and leaves out lines that are damaged: an extraction
that was killed and continued leaves one that is cut off.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.text_files import require_regular_file
from crossmodal.regions.precomputed.rows import (
    FeatureReader,
    as_features,
    as_shares,
    check_aspect,
    image_key,
    record_rows,
)
from crossmodal.runtime import progress
from crossmodal.terminal import warn

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
        if not arrays["features"].size:
            raise ValueError("no features")
    except ValueError as error:
        raise UserError(f"{where}: not a row of region features, cut off? ({error})") from None
    return TsvRow(fields["image"].decode("utf-8", "replace"), width, height, **arrays)


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


class TsvReader(FeatureReader):
    """A TSV file, or all files of a folder whose names contain ".tsv".

    Of several lines of an image the first undamaged one counts. An image with damaged lines alone is missing.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        files = sorted(file for file in path.glob("*.tsv*") if file.is_file()) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: holds no file named *.tsv")
        self._lines: dict[int, tuple[Path, int, int]] = {}  # row -> file, line number, offset
        rows, columns, size, damaged, problems = record_rows(dataset), 0, 0, [], {}
        bytes_in_all = sum(file.stat().st_size for file in files if file.exists())
        with progress(total=bytes_in_all, unit="B", unit_scale=True) as bar:
            for file in files:
                for number, offset, line in read_lines(file):
                    bar.update(len(line))
                    row = rows.get(image_key(line.partition(b"\t")[0][:_LONGEST_NAME].decode("utf-8", "replace")))
                    try:
                        found = parse_line(line, f"{file.name}, line {number}")
                    except UserError as error:
                        damaged.append(str(error))
                        problems.setdefault(row, str(error))
                        continue
                    here = line.count(b"\t") + 1
                    columns = columns or here
                    if here != columns:
                        raise UserError(f"{file}, line {number}: {here} columns, expected {columns}")
                    if row is not None:
                        size = size or found.features.shape[1]
                        self._lines.setdefault(row, (file, number, offset))
        if damaged and not columns:
            raise UserError(f"{path}: no whole line; {damaged[0]}")
        if damaged:
            warn(f"{path}: {len(damaged)} damaged lines are left out, {damaged[0]} for one")
        self.named = ("classes", "attributes", "scores") if columns == 10 else ()
        super().__init__(dataset, self._lines, size, "boxes", *self.named)
        self.problems = problems

    def row(self, row: int) -> dict[str, np.ndarray]:
        path, number, offset = self._lines[row]
        with path.open("rb") as file:
            file.seek(offset)
            line = file.readline(LONGEST_LINE)
        where = f"{path}, line {number}"
        found = parse_line(line, where)
        check_aspect(self.dataset.records[row], found.width, found.height, where)
        values = {"features": as_features(found.features, where, self.size)}
        values["boxes"] = as_shares(found.boxes, found.width, found.height, len(found.features), where)
        return values | {name: getattr(found, name) for name in self.named}
