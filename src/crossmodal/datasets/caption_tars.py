"""Photographs and captions of webdataset tars.

    key.txt     a caption a line
    key.json    {"caption": "..."} or {"captions": ["...", "..."]}; else "text", "title", "comment" or "raw"; "split"

A sample with both has the captions of key.txt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crossmodal.datasets.archives.addresses import folder_names
from crossmodal.datasets.archives.webdataset import Samples, unpack_samples
from crossmodal.datasets.caption_files import Listed, Listing
from crossmodal.datasets.caption_json import json_row
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.runtime import progress


def read_tars(addresses: Sequence[str], folder: Path) -> tuple[dict[str, Listed], list[Skipped], dict[str, str]]:
    """Unpack the photographs of tars into ``folder``, each tar into a folder of its name there.

    Returns:
        Images by name below ``folder``, in the order of the tars; what was left out; checksums of the tars by name.

    Raises:
        UserError: see ``webdataset.unpack_samples``.
    """
    listing, skipped, sums = Listing(None), [], {}
    for address, tar in zip(progress(addresses, desc="tars", unit="tar"), folder_names(list(addresses)), strict=True):
        samples = unpack_samples(address, folder / tar)
        sums[f"{tar}.tar"] = f"sha256:{samples.sha256}"
        skipped += [Skipped(f"{tar}/{item.item}", item.reason) for item in samples.skipped]
        for position, row in _rows(samples):
            name = row["image"] if isinstance(row, dict) else position
            row = row | {"image": f"{tar}/{name}"} if isinstance(row, dict) else row
            if problem := row if isinstance(row, str) else listing.add(row, f"{tar}/{position}"):
                skipped.append(Skipped(f"{tar}/{position}", problem))
    return listing.images, skipped + listing.finish(addresses[0]), sums


def _rows(samples: Samples) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each image with its captions, then what is wrong with texts that no image has."""
    unused = {PurePosixPath(name).with_suffix("").as_posix(): name for name in samples.texts}
    for image in samples.images:
        found = samples.text_of(image)
        if found is None:
            yield image, {"image": image, "caption": []}
            continue
        name, content = found
        unused.pop(PurePosixPath(name).with_suffix("").as_posix(), None)
        row = _read(name, content)
        yield name, row if isinstance(row, str) else row | {"image": image}
    for name in unused.values():
        yield name, "no photograph of this key"


def _read(name: str, content: bytes) -> dict[str, Any] | str:
    """Caption and split of a file, or what is wrong with it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "not UTF-8 text"
    if name.endswith(".txt"):
        lines = [line for line in text.splitlines() if line.strip()]
        return {"caption": lines} if lines else "no caption"
    try:
        row = json_row(parse_json(text, name, nan=True, halves=True))
    except UserError:
        return "not JSON"
    return row if isinstance(row, str) or "caption" in row else "no caption: expected a key such as caption or text"
