import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import UserError
from crossmodal.reports.gallery import write_gallery
from crossmodal.reports.sheets import RIGHT

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Balanced tags, the queries by section, and whatever could load something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.queries, self.links, self.scripts = [], [], [], 0
        self.section = None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID and tag != "rect":
            self.open.append(tag)
        self.links += [(tag, name, attrs[name]) for name in ("src", "href", "srcset", "data") if name in attrs]
        self.scripts += tag == "script"
        classes = (attrs.get("class") or "").split()
        if tag == "section":
            self.section = attrs["id"]
        elif tag == "article":
            self.queries.append({"section": self.section, "classes": classes, "text": "", "tiles": [], "images": []})
        elif tag == "img":
            self.queries[-1]["images"].append(attrs)
        elif tag == "rect":
            self.queries[-1].setdefault("boxes", []).append(attrs)
        elif tag == "li" and self.queries:
            self.queries[-1]["tiles"].append((classes, ""))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "article" in self.open:
            self.queries[-1]["text"] += data
            if "li" in self.open:
                classes, text = self.queries[-1]["tiles"][-1]
                self.queries[-1]["tiles"][-1] = (classes, text + data)

    def of(self, section):
        return [query for query in self.queries if query["section"] == section]


def write(material, folder, *, queries=24, regions=None, title="Model <on> tiny"):
    return write_gallery(
        folder,
        material.dataset,
        material.split,
        material.results,
        regions or material.regions,
        title=title,
        queries=queries,
        seed=0,
    )


@pytest.fixture
def page(material, tmp_path):
    return Page(write(material, tmp_path / "out").read_text(encoding="utf-8"))


def test_every_caption_is_there_and_escaped(material, tmp_path):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    page = Page(text)
    assert page.scripts == 1  # the page's own
    assert "<script>alert" not in text and "<b>square" not in text and "Model <on>" not in text
    captions = [caption for record in material.dataset.records[1:5] for caption in record.captions]
    queries = [query["text"] for query in page.of("t2i")]
    assert len(queries) == len(captions)
    assert all(caption in query for caption, query in zip(captions, queries, strict=True))
    assert material.nasty in queries[0]
    assert any(material.nasty in image["alt"] for image in page.of("t2i")[0]["images"])


def test_hits_and_misses_are_marked(page, material):
    for section, ranks in (("t2i", material.results.t2i_ranks), ("i2t", material.results.i2t_ranks)):
        marks = [query["classes"] for query in page.of(section)]
        assert marks == [["card", "hit" if rank == 0 else "miss"] for rank in ranks]
        for query, rank in zip(page.of(section), ranks, strict=True):
            assert ("first" in query["text"]) or f"at rank {rank + 1}" in query["text"]
    assert [query["classes"][1] for query in page.of("probe")] == ["hit", "miss"]
    assert "1 of 2 captions right" in page.of("probe")[1]["text"]


def test_right_images_are_framed_and_shown_even_when_far_down(page, material):
    for number, query in enumerate(page.of("t2i")):
        own = f"test-{number // 2}:"
        pictures = [image["alt"].startswith(own) for image in query["images"]]
        tiles = [classes for classes, _ in query["tiles"] if "tile" in classes]
        assert [("right" in classes) for classes in tiles] == pictures
        assert sum(pictures) == 1
        assert len(tiles) == (3 if material.results.t2i_ranks[number] > 1 else 2)
        assert ("beyond" in tiles[-1]) == (material.results.t2i_ranks[number] > 1)


def test_right_captions_are_marked(page, material):
    for query, found, number in zip(page.of("i2t"), material.results.i2t_top, range(4), strict=True):
        marked = [classes == ["right"] for classes, text in query["tiles"] if re.match(r"\d", text)]
        assert marked == [caption // 2 == number for caption in found]
    assert "−0.500" in page.of("i2t")[3]["text"]


def test_nothing_is_loaded_from_outside(material, tmp_path):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    links = Page(text).links
    assert links and all(name == "src" and value.startswith("data:image/jpeg;base64,") for _, name, value in links)
    assert not re.search(r"https?:|url\(|@import", text)
    for _, _, value in links:
        with Image.open(io.BytesIO(base64.b64decode(value.split(",")[1]))) as image:
            assert max(image.size) <= 192


def test_boxes_are_shares_of_the_picture_with_names(page, material):
    first, second = page.of("i2t")[0]["boxes"]  # the better one first
    assert first["class"] == "region-0" and second["class"] == "region-1"
    x1, y1, x2, y2 = material.box
    assert [float(first[key]) for key in ("x", "y", "width", "height")] == [x1, y1, x2 - x1, y2 - y1]
    assert "red <b>square" in page.of("i2t")[0]["text"]  # row 1 of the store
    assert "red circle" in page.of("i2t")[1]["text"]


def test_grid_cells_are_not_drawn(material, write_regions, tmp_path):
    grid = write_regions(tmp_path / "grid", len(material.dataset.records), "grid")
    text = write(material, tmp_path / "out", regions=grid).read_text(encoding="utf-8")
    assert "<rect" not in text and "No boxes" not in text


def test_without_a_probe_there_is_no_section(material, tmp_path):
    material.results = material.results.__class__(**{**vars(material.results), "probe": np.zeros((0, 2, 2))})
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    assert 'id="probe"' not in text and 'value="probe"' not in text


def test_the_same_bytes_twice(material, tmp_path):
    for folder in ("once", "twice"):
        write(material, tmp_path / folder, queries=3)
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert names == ["gallery.html", "image-to-text.png", "text-to-image.png"]
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    page = Page((tmp_path / "once" / "gallery.html").read_text(encoding="utf-8"))
    assert len(page.of("t2i")) == len(page.of("i2t")) == 3


def test_sheets_open_and_frame_the_right_image(material, tmp_path):
    write(material, tmp_path, title="A long title " * 12)
    green = tuple(int(RIGHT[place : place + 2], 16) for place in (1, 3, 5))
    for name in ("text-to-image.png", "image-to-text.png"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert pixels.shape[1] == 1600
        assert (pixels[0, 0] == 255).all()
        assert (np.abs(pixels - green).max(axis=2) <= 4).sum() > 100


def test_a_store_of_another_dataset_is_refused(material, write_regions, tmp_path):
    other = write_regions(tmp_path / "other", 3, "torchvision")
    with pytest.raises(UserError, match="regions stage"):
        write(material, tmp_path / "out", regions=other)
