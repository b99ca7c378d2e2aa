"""Photographs that clients of a server send."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossmodal.errors import UserError


@contextmanager
def as_file(content: bytes) -> Iterator[Path]:
    """The bytes of an image file as a temporary file; messages within call it "the image that was sent"."""
    with tempfile.NamedTemporaryFile(prefix="query-") as file:
        file.write(content)
        file.flush()
        try:
            yield Path(file.name)
        except UserError as error:
            raise UserError(str(error).replace(file.name, "the image that was sent")) from None
