"""Captions in the splits of Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015 (arXiv 1412.2306).

One JSON file, ``dataset_flickr30k.json`` or ``dataset_coco.json``, holds captions and splits. It lists the images in
the order that the published feature files and the five 1K folds of COCO follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossmodal.datasets.archives.unpack import read_members
from crossmodal.datasets.assemble import SPLITS, Entry
from crossmodal.datasets.caption_columns import HALF_A_CHARACTER, LONE_SURROGATE
from crossmodal.datasets.caption_json import json_id
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.files.text_files import read_bytes

RESTVAL = "restval"  # COCO: images of val2014 that are in neither val nor test
_KEPT = ("images", "dataset", "filename", "split", "cocoid", "sentences", "raw")


def read_captions(
    path: Path, name: str, *, restval: bool = False, captions: int = 0, max_images: int = 0
) -> tuple[list[Entry], list[Skipped]]:
    """Entries of one of Karpathy's JSON files, or of the zip archive that holds all of them, and what was left out.

    Entries are in the order of the splits train, val, test and, inside a split, of the file. White space at the ends of
    a caption and runs of it inside become none and one space. The id of an image is its COCO id if the file has one,
    else its file name without the suffix. Left out are an image that is listed a second time and an empty caption.

    Args:
        name: of the dataset. restval: whether these images join train.
        captions: of each image, the first ones; max_images: of each split, the first ones; 0: all.

    Raises:
        UserError: not JSON of this form, or the captions of another dataset.
    """
    source = str(path)
    if path.suffix == ".zip":
        member = f"dataset_{name}.json"
        source = f"{path}, member {member}"
        text = read_members(path, [member])[member]
    else:
        text = read_bytes(path)
    content = parse_json(text, source, hook=_kept, nan=True, halves=True)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError(f'{source}: expected {{"images": [...], "dataset": "{name}"}}, as in Karpathy\'s files')
    if content.get("dataset", name) != name:
        raise UserError(f"{source}: holds the dataset {content['dataset']!r}, expected {name!r}")
    found: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    names: set[str] = set()
    ids: set[str] = set()
    skipped = []
    for number, image in enumerate(images):
        try:
            file, split, sentences = image["filename"], image["split"], [item["raw"] for item in image["sentences"]]
            texts = [" ".join(sentence.split()) for sentence in sentences]
            identity = json_id(image.get("cocoid", Path(file).stem))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{source}: images[{number}] is not as in Karpathy's files ({error!r})") from None
        if split not in (*SPLITS, RESTVAL) or any(mark in file for mark in "/\\\0") or file in ("", ".", ".."):
            raise UserError(f"{source}: images[{number}] has file name {file!r} and split {split!r}")
        if identity is None:
            raise UserError(f"{source}: images[{number}] has cocoid {image['cocoid']!r:.100}, expected a number")
        if split == RESTVAL:
            split = "train"
            if not restval:
                continue
        if max_images and len(found[split]) == max_images:
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
            HALF_A_CHARACTER if LONE_SURROGATE.search(text) else "" if text else "empty caption" for text in texts
        ]
        skipped += [Skipped(f"{file} sentence {row}", problem) for row, problem in enumerate(problems) if problem]
        good = [text for text, problem in zip(texts, problems, strict=True) if not problem]
        found[split].append(Entry(identity, file, split, tuple(good[: captions or None]), len(texts) - len(good)))
    return [entry for split in SPLITS for entry in found[split]], skipped


def _kept(item: dict[str, Any]) -> dict[str, Any]:
    """The keys that are read: the word lists would take most of the memory."""
    return {key: item[key] for key in _KEPT if key in item}
