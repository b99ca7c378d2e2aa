"""Names that tools give to the columns or keys of a file of captions, and text that cannot be stored."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

COLUMNS = {
    "image": ("image", "file_name", "filename", "filepath", "image_name"),
    "caption": ("caption", "captions", "text", "title", "comment", "raw"),
    "split": ("split",),
}
HALF_A_CHARACTER = "half a character: text that was cut within an emoji, or a file name that is not UTF-8"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may hold one, UTF-8 cannot
Rows = Iterator[tuple[str, dict[str, Any] | str]]  # position in the file, and the row or what is wrong with it


def find_columns(names: Iterable[Any]) -> dict[str, list[int]]:
    """Positions of the names that are the image, the caption and the split, in any case, with blanks or hyphens.

    Of several known names the first of COLUMNS counts. Several positions of one key: it is there more than once.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        positions[re.sub(r"[\s-]+", "_", str(name).strip().lower())].append(position)
    if "captions" in positions:  # neither says more than the other
        positions["caption"] = sorted(positions["caption"] + positions.pop("captions"))
    first = {key: next((name for name in known if name in positions), None) for key, known in COLUMNS.items()}
    return {key: positions[name] for key, name in first.items() if name is not None}
