"""Photographs and captions of webdataset tars.

    key.txt     a caption a line
    key.json    {"caption": "..."} or {"captions": ["...", "..."]}; else "text", "title", "comment" or "raw"; "split"

A sample with both has the captions of key.txt and the split of key.json. Names are taken as they are: two that differ
only in how accents are encoded are two.
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
from crossmodal.files.text_files import split_lines
from crossmodal.runtime import progress

_NO_TEXT, _NO_JSON = "not UTF-8 text", "not JSON"


def read_tars(addresses: Sequence[str], folder: Path) -> tuple[dict[str, Listed], list[Skipped], dict[str, str]]:
    """Unpack the photographs of tars into ``folder``, each tar into a folder of its name there.

    Returns:
        Images by name below ``folder``, in the order of the tars; what was left out; checksums of the tars by name.

    Raises:
        UserError: see ``webdataset.unpack_samples``.
    """
    listing, skipped, sums = Listing(None, exact=True), [], {}
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
        texts = samples.texts_of(image)
        if not texts:
            yield image, {"image": image, "caption": []}
            continue
        name, content = next(iter(texts.items()))
        unused.pop(PurePosixPath(name).with_suffix("").as_posix(), None)
        row = _read(name, content)
        other = next((text for text in texts if text.endswith(".json")), name)
        if other != name and not isinstance(row, str):
            split = _read_split(other, texts[other])
            name, row = (other, split) if isinstance(split, str) else (name, row | split)
        yield name, row if isinstance(row, str) else row | {"image": image}
    for name in unused.values():
        yield name, "no photograph of this key"


def _read(name: str, content: bytes) -> dict[str, Any] | str:
    """Caption and split of a file, or what is wrong with it."""
    if name.endswith(".txt"):
        try:
            lines = [line for line in split_lines(content.decode("utf-8-sig")) if line.strip()]
        except UnicodeDecodeError:
            return _NO_TEXT
        return {"caption": lines} if lines else "no caption"
    item = _parse(name, content)
    row = item if item in (_NO_TEXT, _NO_JSON) else json_row(item)
    return row if isinstance(row, str) or "caption" in row else "no caption: expected a key such as caption or text"


def _read_split(name: str, content: bytes) -> dict[str, Any] | str:
    """The split in a key.json beside a key.txt, which may hold anything besides, or what is wrong with it."""
    item = _parse(name, content)
    if not isinstance(item, dict):
        return item if item in (_NO_TEXT, _NO_JSON) else {}
    values = [item[key] for key in item if str(key).strip().lower() == "split"]
    return {"split": values[0]} if len(values) == 1 else "'split' twice in one object" if values else {}


def _parse(name: str, content: bytes) -> Any:
    """A JSON value, or _NO_TEXT or _NO_JSON."""
    try:
        return parse_json(content.decode("utf-8-sig"), name, nan=True, halves=True)
    except UnicodeDecodeError:
        return _NO_TEXT
    except UserError:
        return _NO_JSON
