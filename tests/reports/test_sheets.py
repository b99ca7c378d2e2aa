"""Contact sheets of captions never meant for one: in time, on the page, without control characters."""

import time

import numpy as np
import pytest
from PIL import ImageFont

from crossmodal.reports.queries import WordExample
from crossmodal.reports.sheets import LARGE, WIDTH, _font, _Sheet, words_sheet
from crossmodal.reports.words import Piece, Sentence

LONG = "a man with a red hat walks a dog " * 700  # 23,100 characters


@pytest.fixture
def sheet():
    return _Sheet("a heading", "a note")


@pytest.mark.parametrize("text", ["a small dog", "two  dogs run", LONG, "a" * 20_000, "iiii " * 4_000])
@pytest.mark.parametrize("width", [0, 60, 240, 500])
def test_a_text_is_cut_where_a_slow_loop_cuts_it(sheet, text, width):
    font, expected = _font(22), text
    if font.getlength(text) > width:
        expected = text[: width + 2]  # a letter takes a pixel or more
        while expected and font.getlength(expected.rstrip(" …") + "…") > width:
            expected = expected[:-1]
        expected = expected.rstrip(" …") + "…"
    started = time.perf_counter()
    assert sheet.shortened(text, width=width, size=22) == expected
    sheet.wrapped(0, 0, text, width=max(width, 60), lines=5)
    assert time.perf_counter() - started < 5


def test_accents_that_take_no_room(sheet):
    shown = sheet.shortened("e" + "\u0301" * 20_000, width=240, size=22)
    assert shown.endswith("\u0301…")
    assert len(shown) < 300


def test_control_characters_and_lines(sheet):
    assert sheet.shortened("a\nb\tc \x1b[31md\u202e", width=900, size=22) == r"a b c \x1b[31md\u202e"


def long_example(material, pieces):
    query = material.reader().text_query(0)
    count = sum(piece.word is not None for piece in pieces)
    return WordExample(Sentence(0, tuple(pieces)), query.right, query.right.regions[:1], (0,) * count, 1)


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece("a" * 20_000, 0)],
        [part for number in range(4_000) for part in (Piece("word", number), Piece(" ", None))],
        [Piece("a first\nline ", None), Piece("\x1b[31m", 0)],
    ],
)
def test_a_long_caption_stays_in_its_half_of_the_row(material, pieces):
    started = time.perf_counter()
    sheet = words_sheet("title", [long_example(material, pieces)])
    assert time.perf_counter() - started < 5
    short = words_sheet("title", [long_example(material, [Piece("a word", 0)])])
    assert sheet.size == short.size
    assert sheet.height < LARGE + 200
    pixels = np.asarray(sheet)[100:]  # below the heading
    assert (pixels[:, WIDTH // 2 + 10 :] == 255).all()


def test_the_font_knows_no_features_that_depend_on_the_machine():
    assert _font(22).layout_engine == ImageFont.Layout.BASIC
