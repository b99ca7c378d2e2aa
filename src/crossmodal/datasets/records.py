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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crossmodal.errors import UserError

SPLITS = ("train", "val", "test", "probe")


@dataclass(frozen=True)
class GroundTruth:
    """One annotated object: ``box`` is (x1, y1, x2, y2) in pixels of the upright image."""

    box: tuple[float, float, float, float]
    label: str
    attribute: str


@dataclass(frozen=True)
class ImageRecord:
    """One image with its captions.

    ``path`` is relative to the dataset folder, ``width`` and ``height`` are in pixels of the upright picture. In the
    split "probe" records 2k and 2k+1 are a pair with one caption each (see evaluation.probe).
    """

    id: str
    path: str
    split: str
    width: int
    height: int
    captions: tuple[str, ...]
    objects: tuple[GroundTruth, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """An item that was left out of the dataset, and why."""

    item: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A dataset folder, read: records in file order, ``sources`` and ``duplicates`` as in ``write_dataset``."""

    folder: Path
    name: str
    records: tuple[ImageRecord, ...]
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
        offsets = [0]
        for record in self.records:
            offsets.append(offsets[-1] + len(record.captions))
        return offsets


def write_dataset(
    folder: Path,
    name: str,
    records: Iterable[ImageRecord],
    *,
    classes: Iterable[str] = (),
    attributes: Iterable[str] = (),
    skipped: Iterable[Skipped] = (),
    sources: Mapping[str, str] | None = None,
) -> None:
    """Write ``manifest.json`` and ``records.jsonl`` beside the images already in ``folder``.

    ``sources`` maps the name of each archive that the dataset was made from to its checksum. The manifest's
    ``sha256`` is that of the records and all image files: the identity of the dataset for later stages. Its
    ``duplicates`` are groups of ids whose image files are the same bytes. They stay in the dataset: a published
    split with a picture twice is still the published split.
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
    duplicates = [ids for ids in same.values() if len(ids) > 1]
    splits = {
        split: {
            "images": sum(record.split == split for record in records),
            "captions": sum(len(record.captions) for record in records if record.split == split),
        }
        for split in SPLITS
        if any(record.split == split for record in records)
    }
    manifest = {
        "name": name,
        "sha256": digest.hexdigest(),
        "splits": splits,
        "classes": list(classes),
        "attributes": list(attributes),
        "skipped": [asdict(item) for item in skipped],
        "sources": dict(sources or {}),
    }
    if duplicates:
        manifest["duplicates"] = duplicates
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")


def read_dataset(folder: Path) -> Dataset:
    """Read a dataset folder.

    Raises:
        UserError: a file is missing or is not what ``write_dataset`` writes.
    """
    manifest_path, records_path = folder / "manifest.json", folder / "records.jsonl"
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        content = records_path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not found; run the download stage first") from None
    except ValueError as error:
        raise UserError(f"{manifest_path}: not readable as JSON ({error})") from None
    records = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            row = json.loads(line.decode("utf-8"))
            row["captions"] = tuple(row["captions"])
            row["objects"] = tuple(
                GroundTruth(tuple(item["box"]), item["label"], item["attribute"]) for item in row["objects"]
            )
            records.append(ImageRecord(**row))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{records_path}, line {number}: not an image record ({error})") from None
    try:
        return Dataset(
            folder=folder,
            name=manifest["name"],
            records=tuple(records),
            classes=tuple(manifest["classes"]),
            attributes=tuple(manifest["attributes"]),
            skipped=tuple(Skipped(**item) for item in manifest["skipped"]),
            sources=manifest["sources"],
            duplicates=tuple(map(tuple, manifest.get("duplicates", ()))),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{manifest_path}: not the manifest of a dataset ({error!r})") from None
