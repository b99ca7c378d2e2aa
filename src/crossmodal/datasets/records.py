"""The one form in which every dataset reaches the rest of the pipeline.

A dataset folder holds

    manifest.json    name, images and captions per split, object classes and attributes, skipped items,
                     images that are the same file, checksums of the archives it was made from
    records.jsonl    one image a line, in a fixed order: the row number is the image's index everywhere
    images/          the photographs

Captions are numbered in the order of the records: image 0's captions first, then image 1's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import ConfigDict, Field

from crossmodal.errors import UserError
from crossmodal.files.checked_json import as_record, read_json_lines, read_record, write_json

SPLITS = ("train", "val", "test", "probe")
Pixels = Annotated[int, Field(gt=0, strict=True)]
Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_AS_WRITTEN = ConfigDict(extra="forbid")  # how pydantic reads the dataclasses from JSON


@dataclass(frozen=True)
class GroundTruth:
    """One annotated object: ``box`` is (x1, y1, x2, y2) in pixels of the upright image."""

    __pydantic_config__ = _AS_WRITTEN
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    label: str
    attribute: str


@dataclass(frozen=True)
class ImageRecord:
    """One image with its captions.

    ``path`` is relative to the dataset folder, ``width`` and ``height`` are in pixels of the upright picture. In the
    split "probe" records 2k and 2k+1 are a pair with one caption each (see evaluation.probe).
    """

    __pydantic_config__ = _AS_WRITTEN
    id: str
    path: str
    split: str
    width: Pixels
    height: Pixels
    captions: tuple[str, ...]
    objects: tuple[GroundTruth, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """An item that was left out of the dataset, and why."""

    __pydantic_config__ = _AS_WRITTEN
    item: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A dataset folder, read: records in file order, ``sources`` and ``duplicates`` as in ``write_dataset``.

    digest: the manifest's ``sha256``, of records and image files.
    """

    folder: Path
    name: str
    records: tuple[ImageRecord, ...]
    digest: str = ""
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    duplicates: tuple[tuple[str, ...], ...] = ()

    def rows(self, split: str) -> list[int]:
        """Indices of the records of one split, in order."""
        return [row for row, record in enumerate(self.records) if record.split == split]

    def image_path(self, row: int) -> Path:
        return self.folder / self.records[row].path

    def caption_offsets(self) -> list[int]:
        """Number of captions before each image, and the total at the end: len(records) + 1 values."""
        return list(accumulate((len(record.captions) for record in self.records), initial=0))


def write_dataset(
    folder: Path,
    name: str,
    records: Iterable[ImageRecord],
    *,
    classes: Iterable[str] = (),
    attributes: Iterable[str] = (),
    skipped: Iterable[Skipped] = (),
    sources: Mapping[str, str] | None = None,
) -> str:
    """Write ``manifest.json`` and ``records.jsonl`` next to the images already in ``folder``.

    ``sources`` maps the name of each archive that the dataset was made from to its checksum. The manifest's
    ``sha256`` is that of the records and all image files: the identity of the dataset for later stages. Its
    ``duplicates`` are groups of ids whose image files are the same bytes. They stay in the dataset: a published
    split with a picture twice is still the published split.

    Returns:
        That ``sha256``.
    """
    records = list(records)
    lines = [json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records]
    digest = hashlib.sha256("".join(lines).encode())
    same: dict[bytes, list[str]] = {}
    for record in records:
        if (folder / record.path).is_file():
            content = (folder / record.path).read_bytes()
            digest.update(content)
            same.setdefault(hashlib.sha256(content).digest(), []).append(record.id)
    duplicates = tuple(tuple(ids) for ids in same.values() if len(ids) > 1)
    splits = _counts(records)
    left_out, kinds = tuple(skipped), (tuple(classes), tuple(attributes))
    manifest = asdict(_Manifest(name, digest.hexdigest(), splits, *kinds, left_out, dict(sources or {}), duplicates))
    if not duplicates:
        del manifest["duplicates"]
    write_json(folder / "manifest.json", manifest)
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return digest.hexdigest()


def _counts(records: Collection[ImageRecord]) -> dict[str, dict[str, int]]:
    """Images and captions of each split that there is."""
    counts = {}
    for split in SPLITS:
        if own := [len(record.captions) for record in records if record.split == split]:
            counts[split] = {"images": len(own), "captions": sum(own)}
    return counts


def _leads_out(path: str, *, elsewhere: bool) -> bool:
    plain = PurePosixPath(path)
    return not plain.parts or ".." in plain.parts or "\0" in path or (plain.is_absolute() and not elsewhere)


@dataclass(frozen=True)
class _Manifest:
    __pydantic_config__ = _AS_WRITTEN
    name: str
    sha256: str
    splits: dict[str, dict[str, int]]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    sources: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...] = ()


def read_dataset(folder: Path) -> Dataset:
    """Read a dataset folder; that of a gallery, with a gallery.json beside it, may name photographs elsewhere.

    Raises:
        UserError: a file is missing or is not what ``write_dataset`` writes: records without an id of their own, in no
            known split or with a photograph outside of the folder, or not those that the manifest counts.
    """
    advice = "run the download stage first"
    manifest = read_record(folder / "manifest.json", _Manifest, advice=advice)
    elsewhere = (folder.parent / "gallery.json").is_file()  # crossmodal embed leaves photographs where they are
    records: dict[str, ImageRecord] = {}
    for name, content in read_json_lines(folder / "records.jsonl", dict, advice=advice):
        record = as_record(content, ImageRecord, name)
        if record.id in records:
            raise UserError(f"{name}: id {record.id!r:.80} a second time")
        if record.split not in SPLITS:
            raise UserError(f"{name}: split {record.split!r:.80}, expected {', '.join(SPLITS)}")
        if _leads_out(record.path, elsewhere=elsewhere):
            raise UserError(f"{name}: path {record.path!r:.80} leads out of the folder")
        records[record.id] = record
    if (found := _counts(records.values())) != manifest.splits:
        split = next(name for name in (*SPLITS, *manifest.splits) if found.get(name) != manifest.splits.get(name))
        counts = (part.get(split, {"images": 0, "captions": 0}) for part in (found, manifest.splits))
        here, counted = (", ".join(f"{count:,} {kind}" for kind, count in part.items()) for part in counts)
        raise UserError(f"{folder / 'records.jsonl'}: {here} in split {split}, manifest.json counts {counted}")
    return Dataset(
        folder,
        manifest.name,
        tuple(records.values()),
        manifest.sha256,
        manifest.classes,
        manifest.attributes,
        manifest.skipped,
        manifest.sources,
        manifest.duplicates,
    )
