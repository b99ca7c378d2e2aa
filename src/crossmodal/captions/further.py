"""Captions of other photographs that a text encoder is fitted on besides the training captions: ``bert.captions``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crossmodal.datasets.caption_files import read_caption_file
from crossmodal.datasets.records import ImageRecord
from crossmodal.errors import UserError

_FLICKR = re.compile(r"(\d+)_[0-9a-f]{6,}")  # Flickr8k: ID_secret; Flickr30k names its photographs by ID alone
_COCO = re.compile(r"COCO_\w+_0*(\d+)")


@dataclass(frozen=True)
class FittingCaptions:
    """Captions to fit on, image by image: those of the training split first, with further ones of the same photographs.

    added: captions that the file adds. held_photographs, held_captions: captions of the file that were left out, of a
    photograph of another split, or word for word one of its captions. repeated: that the training photograph has
    already.
    """

    images: list[list[str]]
    added: int
    held_photographs: int
    held_captions: int
    repeated: int


def join_captions(records: Sequence[ImageRecord], path: Path) -> FittingCaptions:
    """The training captions and those of a file, without what belongs to the dataset's other splits.

    Left out is a photograph of another split, known by its number (``photograph``) or by two captions that one there
    has word for word, and any caption that is one there. "Word for word" sets case and punctuation aside.

    Args:
        records: of the dataset; splits other than train are held out.
        path: a file of captions in any form of ``datasets.caption_files``; its own splits count for nothing.

    Raises:
        UserError: the file is not readable, or no caption of it is left.
    """
    held = [record for record in records if record.split != "train"]
    held_ids = {photograph(record.id) for record in held}
    held_texts: dict[str, set[str]] = defaultdict(set)
    for record in held:
        for caption in record.captions:
            held_texts[plain_words(caption)].add(record.id)
    training = [record for record in records if record.split == "train"]
    images = [list(record.captions) for record in training]
    row_of = {photograph(record.id): row for row, record in enumerate(training)}
    known = [{plain_words(caption) for caption in image} for image in images]
    listed, _ = read_caption_file(path)
    photographs = captions = repeated = added = 0
    for name, item in listed.items():
        key, texts = photograph(name), {plain_words(caption) for caption in item.captions}
        shared = Counter(other for text in texts for other in held_texts.get(text, ()))
        if key in held_ids or max(shared.values(), default=0) > 1:  # two captions alike: one photograph under two names
            photographs += len(item.captions)
            continue
        fresh = [caption for caption in item.captions if plain_words(caption) not in held_texts]
        captions += len(item.captions) - len(fresh)
        if (row := row_of.get(key)) is not None:
            new = [caption for caption in fresh if plain_words(caption) not in known[row]]
            repeated += len(fresh) - len(new)
            images[row] += new
            added += len(new)
        elif fresh:
            images.append(fresh)
            added += len(fresh)
    if not added:
        raise UserError(f"bert.captions {path}: adds no caption; all are of training photographs, val or test")
    return FittingCaptions(images, added, photographs, captions, repeated)


def word_for_word(captions: Iterable[str], others: Iterable[str]) -> int:
    """How many captions are among others, case, punctuation and white space aside."""
    known = {plain_words(caption) for caption in others}
    return sum(plain_words(caption) in known for caption in captions)


def plain_words(caption: str) -> str:
    """The letters and digits of a caption in lower case, with a space between words."""
    return " ".join(re.findall(r"[^\W_]+", caption.casefold()))


def photograph(name: str) -> str:
    """The name of the photograph in an id or file name, by which it is recognised in another dataset.

    Flickr8k's ``1000268201_693b08cb0e.jpg`` is Flickr30k's ``1000268201.jpg``; ``COCO_val2014_000000391895`` is 391895.
    """
    stem = PurePosixPath(name).name.split(".")[0]
    found = _FLICKR.fullmatch(stem) or _COCO.fullmatch(stem)
    number = found[1] if found else stem
    return number.lstrip("0") or "0" if number.isdigit() else number
