"""Contact sheets: a few queries with their results as one picture, for the README and MLflow."""

from __future__ import annotations

import functools
import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from crossmodal.reports.pictures import NamedRegion, Picture
from crossmodal.reports.queries import ImageQuery, ImageResult, TextQuery, WordExample
from crossmodal.terminal import printable

SHEET_QUERIES = 6
IMAGES = 5  # results of a caption
CAPTIONS = 5  # results of an image

WIDTH, MARGIN, GAP, TILE, LARGE = 1600, 40, 18, 192, 250
TEXT_COLUMN = WIDTH - 2 * MARGIN - (IMAGES + 1) * (TILE + GAP)
PAPER, INK, FAINT, LINE = "#ffffff", "#1b1f24", "#667080", "#e2e6ec"
RIGHT, WRONG = "#178a3e", "#b3261e"
REGIONS = ("#e6398b", "#0a9be0", "#f09a00", "#8a5cf6", "#0fa08c", "#a8652b")  # as in the pages


def text_to_image_sheet(title: str, note: str, queries: Sequence[TextQuery]) -> Image.Image:
    """A row per caption: the caption, its first results, and the right image where it is not among them."""
    sheet = _Sheet(f"{title}: text to image", f"{note}; green frame: the right image")
    for query in queries:
        top = sheet.row(TILE + 36)
        sheet.wrapped(MARGIN, top + 32, query.sentence.text, width=TEXT_COLUMN - 20, lines=5)
        rank = "not found" if query.rank is None else f"rank {query.rank}"
        verdict = "✓ right image first" if query.hit else f"✗ right image: {rank}"
        sheet.text(MARGIN, top, verdict, size=18, bold=True, colour=RIGHT if query.hit else WRONG)
        shown = query.results[:IMAGES]
        further = (*query.results[IMAGES:], *filter(None, [query.beyond]))
        for place, result in enumerate([*shown, *(result for result in further if result.right)]):
            left = MARGIN + TEXT_COLUMN + place * (TILE + GAP) + (GAP if place >= len(shown) else 0)
            sheet.tile(left, top, result)
    return sheet.finish()


def image_to_text_sheet(title: str, note: str, queries: Sequence[ImageQuery]) -> Image.Image:
    """A row per image: the image with its regions and the first captions found, the right ones marked."""
    sheet = _Sheet(f"{title}: image to text", f"{note}; green: the image's own captions")
    for query in queries:
        top = sheet.row(TILE + 8)
        sheet.picture(MARGIN, top, query.picture, regions=query.picture.regions)
        left = MARGIN + TILE + 2 * GAP
        for place, result in enumerate(query.results[:CAPTIONS]):
            y, colour = top + 34 * place, RIGHT if result.right else INK
            sheet.text(left, y, f"{result.position}", size=20, colour=FAINT)
            sheet.text(left + 34, y, "✓" if result.right else "", size=20, bold=True, colour=RIGHT)
            line = sheet.shortened(result.sentence.text, width=WIDTH - MARGIN - left - 66, size=22, bold=result.right)
            sheet.text(left + 66, y - 1, line, size=22, bold=result.right, colour=colour)
        rank = "not found" if query.rank is None else f"at rank {query.rank}"
        verdict = "✓ right caption first" if query.hit else f"✗ best right caption {rank}"
        colour = RIGHT if query.hit else WRONG
        sheet.text(left + 66, top + TILE - 22, verdict, size=18, bold=True, colour=colour)
    return sheet.finish()


def words_sheet(title: str, examples: Sequence[WordExample]) -> Image.Image:
    """Two captions a row: the caption's own image, and its words, each above a bar in the colour of its region."""
    sheet = _Sheet(f"{title}: regions and words", "a word has the colour of the region that answers it most")
    column = (WIDTH - 2 * MARGIN - 2 * GAP) // 2
    for number, example in enumerate(examples):
        if number % 2 == 0:
            top = sheet.row(LARGE)
        sheet.example(MARGIN + (number % 2) * (column + 2 * GAP), top, example, width=column)
    return sheet.finish()


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """As PNG, the same bytes for the same sheet; with a palette it is a third as large."""
    drawn = [ImageColor.getrgb(colour) for colour in (PAPER, INK, FAINT, LINE, RIGHT, WRONG, *REGIONS)]
    sample = sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST)
    photographs = sample.quantize(256 - len(drawn), kmeans=4).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in drawn for value in colour), *photographs])
    small = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    # Pillow looks colours up on a grid of four levels: the paper would be nearly white.
    paper = (np.asarray(sheet) == drawn[0]).all(axis=2)
    small.paste(0, mask=Image.fromarray(paper))
    small.save(path, "PNG", optimize=True)


class _Sheet:
    """A page that grows downwards, row by row."""

    def __init__(self, heading: str, note: str) -> None:
        self._images: list[tuple[int, int, Image.Image]] = []
        self._marks: list[tuple[str, tuple, dict]] = []
        self.bottom = MARGIN
        width = _font(20).getlength(note)
        heading = self.shortened(heading, width=WIDTH - 3 * MARGIN - width, size=30, bold=True)
        self.text(MARGIN, self.bottom, heading, size=30, bold=True)
        self.text(WIDTH - MARGIN - width, self.bottom + 8, note, size=20, colour=FAINT)
        self.bottom += 50

    def row(self, height: int) -> int:
        """Room for a row below a hairline; where it begins."""
        self._mark("line", (MARGIN, self.bottom, WIDTH - MARGIN, self.bottom), fill=LINE, width=2)
        top = self.bottom + GAP
        self.bottom = top + height + GAP
        return top

    def text(self, x: float, y: float, text: str, *, size: int, bold: bool = False, colour: str = INK) -> None:
        self._mark("text", (x, y), text=text, font=_font(size, bold=bold), fill=colour)

    def wrapped(self, x: float, y: float, text: str, *, width: float, lines: int, size: int = 22) -> None:
        font, rows = _font(size), [""]
        for word in _plain(text, room=lines * width).split():
            longer = f"{rows[-1]} {word}".strip()
            if font.getlength(longer) <= width or not rows[-1]:
                rows[-1] = longer
            else:
                rows.append(word)
        if len(rows) > lines:
            rows = [*rows[: lines - 1], f"{rows[lines - 1]} {rows[lines]} …"]
        for number, row in enumerate(rows):
            line = self.shortened(row, width=width, size=size)
            self.text(x, y + number * round(1.36 * size), line, size=size)

    def shortened(self, text: str, *, width: float, size: int, bold: bool = False) -> str:
        """The text cut to the width, with an ellipsis."""
        font, begun = _font(size, bold=bold), _plain(text, room=width)
        if font.getlength(begun) <= width and begun == _plain(text, room=len(text)):
            return begun

        def cut(length: int) -> str:
            return begun[:length].rstrip(" …") + "…"

        return cut(bisect_left(range(1, len(begun) + 1), True, key=lambda length: font.getlength(cut(length)) > width))

    def tile(self, x: int, y: int, result: ImageResult) -> None:
        """Rank and score above the picture, a green frame around the right one."""
        rank = "not found" if result.position is None else f"{result.position}"
        label = rank if result.score is None else f"{rank}  ·  {result.score:.3f}"
        colour = RIGHT if result.right else FAINT
        mark = " ✓" if result.right else ""
        self.text(x, y, label + mark, size=18, bold=result.right, colour=colour)
        self.picture(x, y + 30, result.picture, frame=result.right)

    def example(self, x: int, y: int, example: WordExample, *, width: int) -> None:
        """An image with its numbered regions; beside it the caption, what the regions are, and the rank."""
        self.picture(x, y, example.picture, side=LARGE, regions=example.regions, numbered=True)
        left, width = x + LARGE + GAP, width - LARGE - GAP
        bottom = self._coloured(left, y - 4, example, width=width)
        named = any(region.name for region in example.regions)
        for number, region in enumerate(example.regions if named else ()):
            column, row = number % 2, number // 2
            place = left + column * (width // 2), bottom + 10 + 28 * row
            if place[1] > y + LARGE - 54:  # a long caption leaves no room
                break
            self.tag(*place, number)
            name = self.shortened(region.name or "without a name", width=width // 2 - 36, size=16)
            self.text(place[0] + 29, place[1] + 2, name, size=16, colour=FAINT)
        rank = "not found" if example.rank is None else f"rank {example.rank}"
        verdict = "✓ right image first" if example.hit else f"✗ right image: {rank}"
        self.text(left, y + LARGE - 22, verdict, size=18, bold=True, colour=RIGHT if example.hit else WRONG)

    def _coloured(self, x: float, y: float, example: WordExample, *, width: float, size: int = 22) -> int:
        """The caption in lines, a bar in its region's colour below every word; where the last line ends.

        As many lines as leave room for the verdict, the last with an ellipsis where there is more.
        """
        font, left, line = _font(size), x, round(1.75 * size)
        last = y + (LARGE - 22) // line * line - line
        for piece in example.sentence.pieces:
            text = self.shortened(piece.text, width=width, size=size)
            length = font.getlength(text)
            room = width if y < last else width - size  # the last line keeps room for an ellipsis
            if left + length > x + room and left > x and text.strip():
                if y + line > last:
                    self.text(left, y, "…", size=size)
                    break
                left, y = x, y + line
            self.text(left, y, text, size=size)
            colour = None if piece.word is None else example.colours[piece.word]
            if colour is not None:
                bar = (left, y + 1.24 * size, left + length, y + 1.24 * size + 4)
                self._mark("rectangle", bar, fill=REGIONS[colour])
            left += length
        return round(y + line)

    def tag(self, x: float, y: float, number: int) -> None:
        """A region's number in its colour."""
        self._mark("rectangle", (x, y, x + 21, y + 23), fill=REGIONS[number])
        self.text(x + 5, y + 2, f"{number + 1}", size=17, bold=True, colour=PAPER)

    def picture(
        self,
        x: int,
        y: int,
        picture: Picture,
        *,
        side: int = TILE,
        regions: Sequence[NamedRegion] = (),
        numbered: bool = False,
        frame: bool = False,
    ) -> None:
        image = _fitted(picture.image, side)
        width, height = image.size
        self._images.append((x, y, image))
        for number, region in enumerate(regions):
            x1, y1, x2, y2 = region.box
            corners = (x + x1 * width, y + y1 * height, x + x2 * width - 1, y + y2 * height - 1)
            corners = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
            self._mark("rectangle", corners, outline=REGIONS[number], width=3 if numbered else 2)
            if numbered:
                self.tag(corners[0], max(y, corners[1] - 24), number)  # above the box, which may be small
        if frame:
            self._mark("rectangle", (x - 6, y - 6, x + width + 5, y + height + 5), outline=RIGHT, width=5)

    def finish(self) -> Image.Image:
        sheet = Image.new("RGB", (WIDTH, self.bottom + MARGIN - GAP), PAPER)
        for x, y, image in self._images:
            sheet.paste(image, (x, y))
        draw = ImageDraw.Draw(sheet)
        for kind, place, options in self._marks:
            getattr(draw, kind)(place, **options)
        return sheet

    def _mark(self, kind: str, place: tuple, **options: object) -> None:
        self._marks.append((kind, place, options))


def _plain(text: str, *, room: float) -> str:
    """A line of text, no more of it than could go into ``room`` pixels, of which a character takes one or more."""
    return printable(re.sub(r"\s", " ", text[: int(room) + 1]))


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """The image in a square of ``side`` pixels, enlarged if need be."""
    scale = side / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


@functools.cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, laid out the same with and without Raqm."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
