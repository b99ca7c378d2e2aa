"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_checksum(path: Path, kind: str = "sha256") -> str:
    """The checksum of a file's bytes, as hexadecimal digits; ``kind``: of hashlib."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
