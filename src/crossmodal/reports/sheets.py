"""Contact sheets: a few queries with their results as one picture, for the README and MLflow."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from crossmodal.features.named import NamedRegion
from crossmodal.reports.figures import save_figure
from crossmodal.reports.pictures import Picture
from crossmodal.reports.queries import ExampleResult, Query, WordExample
from crossmodal.terminal import printable

IMAGES = 5  # results of a caption
CAPTIONS = 5  # results of an image

# Pixels; the axes of a sheet count in them, from the top left.
WIDTH, MARGIN, HEAD, GAP, TILE, LARGE = 1600, 40, 90, 18, 192, 250
TEXT_COLUMN = WIDTH - 2 * MARGIN - (IMAGES + 1) * (TILE + GAP)
CHARACTER, LINE_HEIGHT = 12.05, 38  # of DejaVu Sans Mono at 20 pixels, and of a line with bars
PAPER, INK, FAINT, LINE = "#ffffff", "#1b1f24", "#667080", "#e2e6ec"
RIGHT, WRONG = "#178a3e", "#b3261e"
REGIONS = ("#e6398b", "#0a9be0", "#f09a00", "#8a5cf6", "#0fa08c", "#a8652b")  # as in the pages


def text_to_image_sheet(path: Path, title: str, note: str, queries: Sequence[Query]) -> Figure:
    """A row per caption: the caption, its first results, and the right image where it is not among them."""
    heading, note = f"{title}: text to image", f"{note}; green frame: the right image"
    with _sheet(path, heading, note, rows=len(queries), height=TILE + 36) as (axes, tops):
        for query, top in zip(queries, tops, strict=True):
            _verdict(axes, MARGIN, top, query, "right image first", "right image:")
            lines = textwrap.wrap(printable(query.sentence.text), 20, max_lines=5, placeholder=" …")
            for number, line in enumerate(lines):
                _text(axes, MARGIN, top + 32 + 30 * number, line, size=22)
            right = (result for result in query.shown[IMAGES:] if result.right)
            for index, result in enumerate((*query.shown[:IMAGES], *right)):
                left = MARGIN + TEXT_COLUMN + index * (TILE + GAP) + GAP * (index == IMAGES)
                _result(axes, left, top, result)


def image_to_text_sheet(path: Path, title: str, note: str, queries: Sequence[Query]) -> Figure:
    """A row per image: the image with its regions and the first captions found, the right ones marked."""
    heading, note = f"{title}: image to text", f"{note}; green: the image's own captions"
    with _sheet(path, heading, note, rows=len(queries), height=TILE + 8) as (axes, tops):
        left = MARGIN + TILE + 2 * GAP
        for query, top in zip(queries, tops, strict=True):
            _picture(axes, MARGIN, top, query.picture, regions=query.picture.regions)
            for line, result in enumerate(query.results[:CAPTIONS]):
                y, colour = top + 34 * line, RIGHT if result.right else INK
                _text(axes, left, y, f"{result.position}", size=20, color=FAINT)
                _text(axes, left + 34, y, "✓" if result.right else "", size=20, color=RIGHT)
                caption = _shortened(result.sentence.text, 90)
                _text(axes, left + 66, y, caption, size=22, bold=result.right, color=colour)
            _verdict(axes, left + 66, top + TILE - 22, query, "right caption first", "best right caption:")


def words_sheet(path: Path, title: str, examples: Sequence[WordExample], *, occlusion: bool = False) -> Figure:
    """Two captions a row: the caption's own image, and its words, each above a bar in the colour of its region.

    ``occlusion``: regions answer words by it, which the note says.
    """
    note = f"a word has the colour of the region that answers it most{', by occlusion' if occlusion else ''}"
    with _sheet(path, f"{title}: regions and words", note, rows=(len(examples) + 1) // 2, height=LARGE) as (axes, tops):
        for index, example in enumerate(examples):
            left, top = MARGIN + index % 2 * (WIDTH // 2 - MARGIN + GAP), tops[index // 2]
            _picture(axes, left, top, example.picture, side=LARGE, regions=example.regions, numbered=True)
            left += LARGE + GAP
            bottom = _words(axes, left, top, example)
            names = [region.name for region in example.regions]
            for number, name in enumerate(names if any(names) else ()):
                x, y = left + number % 2 * 240, bottom + 28 * (number // 2)
                if y <= top + LARGE - 54:  # a long caption leaves no room
                    _tag(axes, x, y, number)
                    name = _shortened(name or "without a name", 22, "…")
                    _text(axes, x + 29, y + 3, name, size=16, color=FAINT)
            _verdict(axes, left, top + LARGE - 22, example, "right image first", "right image:")


@contextmanager
def _sheet(path: Path, heading: str, note: str, *, rows: int, height: int) -> Iterator[tuple[Axes, list[int]]]:
    """Axes in pixels with a heading and a line above each row, and the y of every row; written as a PNG in the end.

    Without a palette, which would make yellow shapes orange.
    """
    full = HEAD + rows * (height + 2 * GAP) + MARGIN - GAP
    axes = Figure(figsize=(WIDTH / 100, full / 100), dpi=100).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(full, 0), autoscale_on=False)
    axes.set_axis_off()
    _text(axes, MARGIN, MARGIN, _shortened(heading, 44), size=30, bold=True)
    _text(axes, WIDTH - MARGIN, MARGIN + 8, note, size=20, color=FAINT, ha="right")
    tops = [HEAD + GAP + row * (height + 2 * GAP) for row in range(rows)]
    axes.hlines([top - GAP for top in tops], MARGIN, WIDTH - MARGIN, color=LINE, linewidth=1.5)
    yield axes, tops
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a script that the font lacks
        save_figure(axes.figure, path)


def _text(axes: Axes, x: float, y: float, text: str, *, size: int, bold: bool = False, **options: object) -> None:
    """A line of text from its top left corner, ``size`` in pixels; pictures cover what is too wide."""
    options = {"color": INK, "family": "DejaVu Sans", "zorder": 0, "weight": "bold" if bold else "normal", **options}
    axes.text(x, y + 0.93 * size, printable(text), size=0.72 * size, parse_math=False, **options)


def _verdict(axes: Axes, x: float, y: float, query: Query | WordExample, hit: str, miss: str) -> None:
    rank = "not found" if query.rank is None else f"rank {query.rank}"
    text, colour = (f"✓ {hit}", RIGHT) if query.hit else (f"✗ {miss} {rank}", WRONG)
    _text(axes, x, y, text, size=18, bold=True, color=colour)


def _result(axes: Axes, x: float, y: float, result: ExampleResult) -> None:
    """Rank and score above the picture, a green frame around the right one."""
    rank = "not found" if result.position is None else f"{result.position}"
    label = rank if result.score is None else f"{rank}  ·  {result.score:.3f}"
    label, colour = (f"{label} ✓", RIGHT) if result.right else (label, FAINT)
    _text(axes, x, y, label, size=18, bold=result.right, color=colour)
    width, height = _picture(axes, x, y + 30, result.picture)
    if result.right:
        axes.add_patch(Rectangle((x - 3, y + 27), width + 6, height + 6, fill=False, edgecolor=RIGHT, linewidth=4))


def _picture(
    axes: Axes,
    x: float,
    y: float,
    picture: Picture,
    *,
    side: int = TILE,
    regions: Sequence[NamedRegion] = (),
    numbered: bool = False,
) -> tuple[int, int]:
    """The picture in a square of ``side`` pixels with its regions; its width and height."""
    image = ImageOps.contain(picture.image, (side, side), Image.Resampling.LANCZOS)
    width, height = image.size
    axes.imshow(image, extent=(x, x + width, y + height, y), aspect="auto", interpolation="nearest", zorder=0.5)
    for number, region in enumerate(regions):
        x1, y1, x2, y2 = region.box
        corner = (x + x1 * width, y + y1 * height)
        size = ((x2 - x1) * width, (y2 - y1) * height)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=REGIONS[number], linewidth=2))
        if numbered:
            _tag(axes, corner[0], max(y, corner[1] - 24), number)  # above the box, which may be small
    return width, height


def _words(axes: Axes, x: float, y: float, example: WordExample) -> float:
    """The caption in lines, a bar in its region's colour below every word; the y below the last line.

    As many lines as leave room for the verdict, the last with an ellipsis where there is more.
    """
    room, lines = int((WIDTH // 2 - MARGIN - GAP - LARGE - GAP) / CHARACTER), (LARGE - 22) // LINE_HEIGHT
    line = column = 0
    for piece in example.sentence.pieces:
        text = printable(piece.text.replace("\n", " "))[:room]
        if column and column + len(text.rstrip()) > room - (line == lines - 1):  # the last line may need an ellipsis
            line, column = line + 1, 0
        if line == lines:
            _text(axes, x + room * CHARACTER, y + (line - 1) * LINE_HEIGHT, "…", size=20, ha="right")
            return y + line * LINE_HEIGHT
        left, top = x + column * CHARACTER, y + line * LINE_HEIGHT
        _text(axes, left, top, text, size=20, family="DejaVu Sans Mono")
        colour = None if piece.word is None else example.colours[piece.word]
        if colour is not None:
            axes.add_patch(Rectangle((left, top + 25), len(text) * CHARACTER, 4, color=REGIONS[colour], linewidth=0))
        column += len(text)
    return y + (line + 1) * LINE_HEIGHT


def _tag(axes: Axes, x: float, y: float, number: int) -> None:
    """A region's number in its colour."""
    axes.add_patch(Rectangle((x, y), 21, 23, color=REGIONS[number], linewidth=0))
    _text(axes, x + 5, y + 3, f"{number + 1}", size=17, bold=True, color=PAPER, zorder=3)


def _shortened(text: str, width: int, placeholder: str = " …") -> str:
    """At most ``width`` characters; words longer than a line are cut first, so that something of them is left."""
    words = " ".join(word[: width - 2] for word in printable(text).split())
    return textwrap.shorten(words, width, placeholder=placeholder)
