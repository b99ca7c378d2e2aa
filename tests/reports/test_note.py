"""The description of a run says what metrics/test.json says."""

from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig
from crossmodal.reports.note import run_note
from crossmodal.retrieval.results import summary


def test_it_has_the_figures(results):
    config = MatcherConfig("tern", {}, InputSizes(8, 8), "key", "bert", {})
    lines = run_note(config, "scenes", summary(results)).splitlines()
    # of 4 images 2 have a caption first, 3 among the first five, all among ten; ranks 1, 3, 1, 6
    assert "| image to text | 50.0 | 75.0 | 100.0 | 2.0 |" in lines
    # of 8 captions 3 have their image first, all among the first five; ranks 1, 2, 1, 4, 3, 1, 2, 4
    assert "| text to image | 37.5 | 100.0 | 100.0 | 2.0 |" in lines
    assert lines[0].startswith(
        "**tern on scenes**, 4 test images, 8 captions: rsum 462.5 of 600, probe image score 50.0 %"
    )
