"""Photographs of a gallery as JPEG files, reduced, and kept in memory up to a bound.

A file is never sent as it is: decoded and written anew, it is surely a picture, upright, and without the camera's
notes, such as where it was taken.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from crossmodal.datasets.decode import read_thumbnail

SIDES = (16, 2048)  # least and largest longer side
QUALITY = 85
MOST_BYTES = 64 * 10**6  # of the pictures that are kept


class Thumbnails:
    """JPEG files by item and longer side.

    Args:
        path: of an item's photograph.
    """

    def __init__(self, path: Callable[[int], Path], most_bytes: int = MOST_BYTES) -> None:
        self._path, self._most = path, most_bytes
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    def jpeg(self, item: int, side: int) -> bytes:
        """The picture, its longer side at most ``side`` pixels.

        Raises:
            UserError: the file is missing or unreadable.
        """
        with self._lock:
            if (item, side) in self._kept:
                self._kept.move_to_end((item, side))
                return self._kept[item, side]
        buffer = io.BytesIO()
        read_thumbnail(self._path(item), side).save(buffer, "JPEG", quality=QUALITY)
        content = buffer.getvalue()
        with self._lock:
            if (item, side) not in self._kept:
                self._kept[item, side] = content
                self._bytes += len(content)
            while self._bytes > self._most:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return content
