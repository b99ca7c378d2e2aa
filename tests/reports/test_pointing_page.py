"""Pointing on the analysis page."""

import numpy as np
import pytest
from PIL import Image

from crossmodal.datasets.phrases import Phrase, write_phrases
from crossmodal.evidence.pointed import Pointed
from crossmodal.reports.analysis import CHARTS, write_analysis
from crossmodal.reports.breakdown import break_down
from crossmodal.reports.pointing import pieces_of, pointing_part
from crossmodal.retrieval.results import summary

FIGURES = {
    "phrases": 2,
    "occlusion": {"centre": 50.0, "iou50": 25.0},
    "chance": {"centre": 12.5, "iou50": 10.0},
    "bound": {"centre": 100.0, "iou50": 75.0},
}


@pytest.fixture
def pointed(material):
    """A hit in image row 2, with the region at BOX, and a miss in row 1, whose caption is nasty."""
    phrases = [
        Phrase("train-0", 0, ((0, 5),), ((0.0, 0.0, 1.0, 1.0),)),
        Phrase("test-0", 0, ((0, 8), (9, 14)), ((100.0, 50.0, 300.0, 100.0),)),
        Phrase("test-1", 1, ((7, 13),), ((20.0, 30.0, 70.0, 160.0), (0.0, 0.0, 5.0, 5.0))),
    ]
    write_phrases(material.dataset.folder, phrases)
    return Pointed(
        phrase=np.array([1, 0]),  # of the test split
        image=np.array([2, 1]),
        caption=np.array([5, 2]),
        region=np.array([1, 0]),
        right=np.array([[True, True], [False, False]]),
    )


def test_hits_and_misses_with_their_boxes(material, pointed, tmp_path, read_page):
    for name in CHARTS:
        Image.new("RGB", (40, 20), "white").save(tmp_path / name)
    reader = material.reader()
    metrics = summary(reader.results) | {"pointing": FIGURES}
    part = pointing_part(reader.pictures, pointed, metrics)
    assert part.rows[0] == ("phrases, by occlusion", {"centre": 50.0, "iou50": 25.0})
    hit, miss = part.examples
    assert hit.hit and hit.pieces == (("test-1 ", False), ("second", True))
    assert [region.box for region in hit.regions] == [
        material.box, pytest.approx((0.2, 0.1, 0.7, 160 / 300)), pytest.approx((0, 0, 0.05, 5 / 300)),
    ]  # fmt: skip
    assert not miss.hit and miss.regions[1].box == pytest.approx((0.25, 0.25, 0.75, 0.5))

    breakdown = break_down(material.dataset, material.split, material.results, material.regions)
    shown = {"title": "tiny", "roc_auc": None, "metrics": metrics, "pointing": part}
    text = write_analysis(tmp_path, reader, breakdown, **shown).read_text(encoding="utf-8")
    found = read_page(text).of("pointing")
    assert [card["classes"] for card in found] == [["card", "hit"], ["card", "miss"]]
    assert len(found[0]["boxes"]) == 3 and found[0]["boxes"][0]["x"] == "0.2500"
    assert "test-1 second" in found[0]["text"] and "<mark>second</mark>" in text
    assert "<script>alert" not in text and ">25.0</td>" in text


def test_nothing_measured_nothing_shown(material, pointed):
    reader = material.reader()
    assert pointing_part(reader.pictures, None, {"pointing": FIGURES}) is None
    assert pointing_part(reader.pictures, pointed, {}) is None


def test_pieces_of_a_caption():
    pieces = pieces_of("a red circle", [(2, 5), (6, 12)])
    assert pieces == (("a ", False), ("red", True), (" ", False), ("circle", True))
    assert pieces_of("red", [(0, 3)]) == (("red", True),)
