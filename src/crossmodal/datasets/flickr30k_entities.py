"""Flickr30k Entities: phrases of Flickr30k's captions and the boxes that they name (Plummer et al., IJCV 2017).

The layout is that of github.com/BryanPlummer/flickr30k_entities, with annotations.zip as it is or unpacked:

    Sentences/1000092795.txt      a caption a line: [/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] ...
    Annotations/1000092795.xml    objects with the numbers of phrases as names, and a box, or none
    train.txt val.txt test.txt    the images' numbers in each split, 29,783 / 1,000 / 1,000

These splits are others than Karpathy's: of their 1,000 test images 25 are in Karpathy's test split, 903 in its training
split and 38 in none.
"""

from __future__ import annotations

import difflib
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from crossmodal.datasets.assemble import SPLITS, Entry
from crossmodal.datasets.phrases import Phrase
from crossmodal.datasets.records import ImageRecord, Skipped
from crossmodal.errors import UserError
from crossmodal.files.text_files import read_text, split_lines
from crossmodal.terminal import warn

ARCHIVE = "annotations.zip"
FOLDERS = ("Sentences", "Annotations")
MAX_BYTES = 2**20  # of a file in the archive; the largest is 20 KB
ALIKE = 0.9  # of the characters of a sentence and a caption that are the same one
_PENN = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")"}  # words of the Penn Treebank for other characters
_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "`": "'"})

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Chunk:
    """A phrase of a sentence: the number of what it names, and its words."""

    number: str
    words: tuple[int, ...]


@dataclass(frozen=True)
class Boxes:
    """Annotations of an image: boxes by number, and its width and height in pixels."""

    of: dict[str, list[Box]]
    width: int
    height: int


class Entities:
    """The files of the archive, or of a folder with it, packed or not.

    Raises:
        UserError: they are not there.
    """

    def __init__(self, path: Path) -> None:
        packed = path if path.is_file() else path / ARCHIVE
        self.folder = path if path.is_dir() else path.parent
        self.archive, self.members = None, {}
        if not all((self.folder / name).is_dir() for name in FOLDERS):
            if not packed.is_file():
                raise UserError(
                    f"flickr30k.entities {path}: neither {ARCHIVE} nor the folders {' and '.join(FOLDERS)} in it"
                )
            try:
                self.archive = zipfile.ZipFile(packed)
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{packed}: not a readable zip archive ({error}); get it again") from None
            for member in self.archive.infolist():
                self.members["/".join(PurePosixPath(member.filename).parts[-2:])] = member
            if not any(name.startswith(FOLDERS[0]) for name in self.members):
                raise UserError(f"{packed}: no {FOLDERS[0]}/ in it")

    def read(self, folder: str, name: str) -> tuple[str, str] | None:
        """Text and name of a file; None where there is none."""
        member = self.members.get(f"{folder}/{name}")
        if self.archive is None:
            path = self.folder / folder / name
            return (read_text(path, max_bytes=MAX_BYTES), str(path)) if path.is_file() else None
        if member is None:
            return None
        where = f"{self.archive.filename}, member {member.filename}"
        if member.file_size > MAX_BYTES:
            raise UserError(f"{where}: {member.file_size:,} bytes, expected at most {MAX_BYTES:,}")
        try:
            return self.archive.read(member).decode("utf-8"), where
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
            raise UserError(f"{where}: not readable ({error})") from None


def entity_entries(path: Path, max_images: int) -> tuple[list[Entry], list[Skipped]]:
    """The images of train.txt, val.txt and test.txt with their sentences as captions, and those that have none.

    Args:
        max_images: of each split the first so many; 0: all.

    Raises:
        UserError: a file is missing or not of the layout, or an image is in two splits.
    """
    entities, skipped, split_of = Entities(path), [], {}
    for split in SPLITS:
        numbers = read_text(entities.folder / f"{split}.txt").split()
        for number in numbers[:max_images] if max_images else numbers:
            if number in split_of:
                raise UserError(f"{entities.folder / split}.txt: image {number} is in {split_of[number]}.txt too")
            split_of[number] = split
    entries = []
    for number, split in split_of.items():
        found = entities.read(FOLDERS[0], f"{number}.txt")
        if found is None:
            skipped.append(Skipped(f"{number}.jpg", f"no {FOLDERS[0]}/{number}.txt"))
            continue
        text, name = found
        captions = [" ".join(parse_sentence(line, name)[0]) for line in split_lines(text) if line.strip()]
        entries.append(Entry(number, f"{number}.jpg", split, tuple(filter(None, captions))))
    return entries, skipped


def read_entities(path: Path, records: Iterable[ImageRecord]) -> Iterator[Phrase]:
    """The phrases of all captions that name a box.

    A caption's sentence is the one with the same characters, white space apart; sentences are split into words and
    have other quotation marks, so that nearly the same (ALIKE) is enough for the one of the same number. How many
    images and captions have none is a warning.

    Raises:
        UserError: the files are missing or not of the layout.
    """
    entities, missing, unmatched, total = Entities(path), [], 0, 0
    for record in records:
        files = [entities.read(*file) for file in zip(FOLDERS, (f"{record.id}.txt", f"{record.id}.xml"), strict=True)]
        if None in files:
            missing.append(record.id)
            continue
        (text, name), annotated = files[0], boxes_of(*files[1])
        sentences = [parse_sentence(line, name) for line in split_lines(text) if line.strip()]
        scale = (record.width / annotated.width, record.height / annotated.height) * 2
        for number, words, chunks in _matched(record.captions, sentences):
            total += 1
            unmatched += words is None
            for chunk in chunks if words is not None else ():
                boxes = [tuple(side * share for side, share in zip(box, scale, strict=True))
                         for box in annotated.of.get(chunk.number, ())]  # fmt: skip
                spans = tuple(words[word] for word in chunk.words if words[word] is not None)
                if boxes and spans:
                    yield Phrase(record.id, number, spans, tuple(boxes))
    if missing:
        warn(f"flickr30k.entities: no annotations of {len(missing)} images, the first is {missing[0]}")
    if unmatched:
        warn(f"flickr30k.entities: {unmatched} of {total} captions are not among the sentences")


def parse_sentence(line: str, name: str) -> tuple[list[str], list[Chunk]]:
    """The words of an annotated sentence, and its phrases.

    Raises:
        UserError: brackets that do not close, or a phrase without a number.
    """
    words: list[str] = []
    chunks: list[Chunk] = []
    number, first = None, 0
    for token in line.split():
        if token.startswith("[/EN#") and number is None:
            number, first = token.removeprefix("[/EN#").split("/")[0], len(words)
            continue
        closes = number is not None and token.endswith("]")
        word = token.removesuffix("]") if closes else token
        words.append(_PENN.get(word, word))
        if closes:
            if not words[-1]:
                words.pop()
            chunks.append(Chunk(number, tuple(range(first, len(words)))))
            number = None
    if number is not None:
        raise UserError(f"{name}: a bracket that does not close in {line[:80]!r}")
    return words, chunks


def boxes_of(text: str, name: str) -> Boxes:
    """Boxes (x1, y1, x2, y2) of an annotation file, in pixels from 0 as the authors' own reader has them.

    Raises:
        UserError: not such a file.
    """
    try:
        root = ElementTree.fromstring(text)
        width, height = (int(root.findtext(f"size/{key}")) for key in ("width", "height"))
        found: dict[str, list[Box]] = {}
        for item in root.iter("object"):
            box = item.find("bndbox")
            if box is not None:
                corners = tuple(float(box.findtext(key)) - 1 for key in ("xmin", "ymin", "xmax", "ymax"))
                for label in item.findall("name"):
                    found.setdefault(str(label.text), []).append(corners)
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise UserError(f"{name}: not an annotation of Flickr30k Entities ({error})") from None
    if min(width, height) < 1:
        raise UserError(f"{name}: size {width} x {height}")
    return Boxes(found, width, height)


def word_spans(words: list[str], caption: str) -> list[tuple[int, int] | None] | None:
    """Characters of each word in a caption, None of a word that is not in it; None where it is another sentence."""
    joined, positions = "".join(words).translate(_QUOTES).lower(), _positions(caption)
    letters = "".join(caption[position] for position in positions).translate(_QUOTES).lower()
    if len(letters) != len(positions) or len(joined) != sum(map(len, words)):  # lower case made two of a character
        return None
    if joined == letters:
        of_letter = dict(enumerate(positions))
    else:
        matcher = difflib.SequenceMatcher(None, joined, letters, autojunk=False)
        if matcher.ratio() < ALIKE:
            return None
        blocks = matcher.get_matching_blocks()
        of_letter = {a + step: positions[b + step] for a, b, size in blocks for step in range(size)}
    spans: list[tuple[int, int] | None] = []
    start = 0
    for word in words:
        own = [of_letter[letter] for letter in range(start, start + len(word)) if letter in of_letter]
        spans.append((own[0], own[-1] + 1) if own else None)
        start += len(word)
    return spans


def _matched(
    captions: tuple[str, ...], sentences: list[tuple[list[str], list[Chunk]]]
) -> Iterator[tuple[int, list[tuple[int, int] | None] | None, list[Chunk]]]:
    """The number of each caption, the characters of its sentence's words, and the sentence's phrases."""
    exact = {_letters("".join(words)): (words, chunks) for words, chunks in sentences}
    for number, caption in enumerate(captions):
        words, chunks = exact.get(_letters(caption)) or (sentences[number] if number < len(sentences) else ([], []))
        yield number, word_spans(words, caption), chunks


def _letters(text: str) -> str:
    return re.sub(r"\s", "", text).translate(_QUOTES).lower()


def _positions(text: str) -> list[int]:
    return [position for position, letter in enumerate(text) if not letter.isspace()]
