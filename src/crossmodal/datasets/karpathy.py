"""Datasets in the splits of Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015 (arXiv 1412.2306).

Captions and splits are one JSON file, ``dataset_flickr30k.json`` or ``dataset_coco.json``, that lists the images in
the order which the published feature files and the five 1K folds of COCO follow; the photographs are archives of
their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.datasets.archives.obtain import Archive, Obtained, obtain_one_of
from crossmodal.datasets.archives.unpack import plain_name, unpack
from crossmodal.datasets.assemble import Entry, check_images, write_entries
from crossmodal.datasets.caption_columns import HALF_A_CHARACTER, LONE_SURROGATE
from crossmodal.datasets.caption_json import json_id
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json
from crossmodal.settings.params import Download

SPLITS = ("train", "val", "test")
RESTVAL = "restval"  # COCO: images of val2014 that are in neither val nor test
CAPTION_DATASETS = Archive(
    "caption_datasets.zip",
    (
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        "https://huggingface.co/datasets/gpantaz/karpathy_split/resolve/main/caption_datasets.zip",
    ),
)
_KEPT = ("images", "dataset", "filename", "split", "cocoid", "sentences", "raw")


@dataclass(frozen=True)
class Published:
    """A dataset as it was given out: every ``photographs`` is needed, in any one of its forms."""

    name: str
    captions: tuple[Archive, ...]
    photographs: tuple[tuple[Archive, ...], ...]


@dataclass(frozen=True)
class Selection:
    """Of each image the first ``captions`` (0: all), of each split the first ``max_images`` (0: all)."""

    restval: bool
    captions: int
    max_images: int


def build_karpathy(
    folder: Path, published: Published, selection: Selection, download: Download, cache_folder: Path
) -> None:
    """Write the dataset folder of a dataset in Karpathy's splits.

    Records are in the order of the splits train, val, test and, inside a split, of the JSON file. The photographs
    go from the archive straight to where they stay, with their bytes; each is decoded once in full. Left out and
    listed in the manifest are: an image that is missing or does not decode (its captions go with it), an image
    without captions or listed a second time, an empty caption.

    Raises:
        UserError: a file cannot be obtained or read; more than ``download.max_bad`` items were left out; a split
            would be empty.
    """

    def get(archives: tuple[Archive, ...]) -> Obtained:
        return obtain_one_of(archives, cache_folder, download.mirror, offline=download.offline)

    # What must be asked for goes first: nobody is to wait for a download to learn of it.
    groups = sorted(
        (published.captions, *published.photographs), key=lambda forms: not any(form.terms for form in forms)
    )
    obtained = {forms: get(forms) for forms in groups}
    text = obtained[published.captions]
    entries, skipped = read_captions(text.path, published.name, selection)
    photographs = [obtained[forms] for forms in published.photographs]
    sources = {text.path.name: text.source}
    write_photographs(folder, published.name, entries, skipped, photographs, text.path, sources, download.max_bad)


def write_photographs(
    folder: Path,
    name: str,
    entries: Sequence[Entry],
    skipped: Sequence[Skipped],
    photographs: Sequence[Obtained],
    listing: Path,
    sources: Mapping[str, str],
    max_bad: int,
) -> None:
    """Unpack the photographs of all entries and write the dataset folder.

    Args:
        skipped: what was left out before. listing: the file that the entries come from. sources: its checksum, by name.

    Raises:
        UserError: an archive cannot be read; more than ``max_bad`` items were left out; a split would be empty.
    """
    images = folder / "images"
    listed, reasons = {entry.file for entry in entries}, {}
    for found in photographs:
        damaged = unpack(found.path, images, lambda member: plain_name(member, listed), tolerant=True)
        reasons |= {item.item: item.reason for item in damaged}
    names = " or ".join(found.path.name for found in photographs)
    absent = {entry.file: f"not in {names}" for entry in entries if not (images / entry.file).is_file()}
    write_entries(
        folder,
        name,
        entries,
        check_images([images / entry.file for entry in entries]),
        reasons=absent | reasons,
        skipped=skipped,
        max_bad=max_bad,
        no_captions=f"no caption in {listing.name}",
        splits=dict.fromkeys(SPLITS, str(listing)),
        sources={**sources, **{found.path.name: found.source for found in photographs}},
    )


def read_captions(path: Path, name: str, selection: Selection) -> tuple[list[Entry], list[Skipped]]:
    """Entries of one of Karpathy's JSON files, or of the zip archive that holds all of them, and what was left out.

    White space at the ends of a caption and runs of it inside become none and one space. The id of an image is its
    COCO id if the file has one, else its file name without the suffix.

    Raises:
        UserError: not JSON of this form, or the captions of another dataset.
    """
    member = f"dataset_{name}.json"
    if path.suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            unpack(path, Path(folder), lambda found: plain_name(found, {member}))
            content = _read_json(Path(folder) / member, f"{path}, member {member}")
            return _entries(content, f"{path}, member {member}", name, selection)
    return _entries(_read_json(path, str(path)), str(path), name, selection)


def _read_json(path: Path, place: str) -> Any:
    def keep(item: dict[str, Any]) -> dict[str, Any]:
        """Only what is read: the word lists would take most of the memory."""
        return {key: item[key] for key in _KEPT if key in item}

    return read_json(path, name=place, hook=keep, nan=True, halves=True)


def _entries(content: Any, place: str, name: str, selection: Selection) -> tuple[list[Entry], list[Skipped]]:
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError(f'{place}: expected {{"images": [...], "dataset": "{name}"}}, as in Karpathy\'s files')
    if content.get("dataset", name) != name:
        raise UserError(f"{place}: holds the dataset {content['dataset']!r}, expected {name!r}")
    found: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    names: set[str] = set()
    ids: set[str] = set()
    skipped = []
    for number, image in enumerate(images):
        try:
            file, split, sentences = image["filename"], image["split"], [item["raw"] for item in image["sentences"]]
            captions = [" ".join(sentence.split()) for sentence in sentences]
            identity = json_id(image.get("cocoid", Path(file).stem))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{place}: images[{number}] is not as in Karpathy's files ({error!r})") from None
        if split not in (*SPLITS, RESTVAL) or any(mark in file for mark in "/\\\0") or file in ("", ".", ".."):
            raise UserError(f"{place}: images[{number}] has file name {file!r} and split {split!r}")
        if identity is None:
            raise UserError(f"{place}: images[{number}] has cocoid {image['cocoid']!r:.100}, expected a number")
        if split == RESTVAL:
            split = "train"
            if not selection.restval:
                continue
        if selection.max_images and len(found[split]) == selection.max_images:
            continue
        if LONE_SURROGATE.search(file + identity):
            skipped.append(Skipped(f"images[{number}]", HALF_A_CHARACTER))
            continue
        if file in names or identity in ids:
            reason = "listed twice" if file in names else f"another image has its id {identity}"
            skipped.append(Skipped(file, f"{reason}, images[{number}]"))
            continue
        names.add(file)
        ids.add(identity)
        problems = [
            HALF_A_CHARACTER if LONE_SURROGATE.search(text) else "" if text else "empty caption" for text in captions
        ]
        skipped += [Skipped(f"{file} sentence {row}", problem) for row, problem in enumerate(problems) if problem]
        good = [text for text, problem in zip(captions, problems, strict=True) if not problem]
        own = _first(good, selection.captions)
        found[split].append(Entry(identity, file, split, tuple(own), left_out=len(captions) - len(good)))
    return [entry for split in SPLITS for entry in found[split]], skipped


def _first(items: Sequence[str], count: int) -> Sequence[str]:
    return items[:count] if count else items
