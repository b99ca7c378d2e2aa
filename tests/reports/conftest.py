"""A dataset of a few drawn images, its regions, and search results made by hand."""

from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crossmodal.datasets.records import Dataset, ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import Split, split_rows
from crossmodal.evidence.evidence import Evidence
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.reports.pictures import Pictures
from crossmodal.reports.queries import QueryReader
from crossmodal.reports.words import WordReader
from crossmodal.retrieval.results import SearchResults

NASTY = """<script>alert("1")</script> & 'quotes' | "more" {{ 7 * 7 }}"""
BOX = (0.25, 0.125, 0.75, 0.5)


VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Balanced tags, the queries by section, and whatever could load something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.queries, self.links, self.pictures, self.scripts = [], [], [], [], 0
        self.section = None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID and tag != "rect":
            self.open.append(tag)
        self.links += [(tag, name, attrs[name]) for name in ("src", "href", "srcset", "data") if name in attrs]
        self.scripts += tag == "script" and "type" not in attrs
        classes = (attrs.get("class") or "").split()
        if tag == "section":
            self.section = attrs["id"]
        elif tag == "article":
            self.queries.append({"section": self.section, "classes": classes, "text": "", "tiles": [], "images": []})
        elif tag == "img":
            (self.queries[-1]["images"] if "article" in self.open else self.pictures).append(attrs)
        elif tag == "rect" and "article" in self.open:
            self.queries[-1].setdefault("boxes", []).append(attrs)
        elif tag == "li" and "article" in self.open:
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


@pytest.fixture
def read_page():
    """Parses the text of a page."""
    return Page


@dataclass
class Material:
    """What write_gallery takes."""

    dataset: Dataset
    split: Split
    results: SearchResults
    regions: FeatureStore
    evidence: Evidence
    nasty: str = NASTY
    box: tuple = BOX

    def reader(self, **changes):
        """What the pages read, with some arrays of the results or the evidence replaced."""
        results = replace(self.results, **{name: changes.pop(name) for name in vars(self.results) if name in changes})
        evidence = changes.pop("evidence", self.evidence)
        pictures = Pictures(self.dataset, changes.pop("regions", self.regions))
        assert not changes
        return QueryReader(self.dataset, self.split, results, pictures, WordReader(self.dataset, evidence))


@pytest.fixture
def results():
    """Ranks of 4 images and 8 captions, caption c belonging to image c // 2, with the first two results."""
    return SearchResults(
        i2t_ranks=np.array([0, 2, 0, 5]),
        t2i_ranks=np.array([0, 1, 0, 3, 2, 0, 1, 3]),
        i2t_top=np.array([[1, 7], [0, 6], [5, 4], [2, 0]]),
        i2t_scores=np.array([[0.9, 0.1], [0.8, 0.7], [0.6, 0.5], [0.25, -0.5]], dtype=np.float32),
        t2i_top=np.array([[0, 1], [2, 0], [1, 3], [0, 2], [0, 1], [2, 0], [1, 3], [0, 1]]),
        t2i_scores=np.tile(np.array([0.75, 0.125], dtype=np.float32), (8, 1)),
        caption_image=np.arange(8) // 2,
        # image x caption: in pair 1 the second caption prefers the first image
        probe=np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.7], [0.4, 0.6]]], dtype=np.float32),
    )


@pytest.fixture
def history(tmp_path):
    """Three epochs; the second is best."""
    path = tmp_path / "history.csv"
    path.write_text(
        "epoch,loss,lr,i2t/r1,i2t/r5,t2i/r1,t2i/r5,rsum\n"
        "1,0.123456789,0.0005,10.0,20.0,11.0,21.0,100.0\n"
        "2,0.0012345678,0.00025,30.123456,40.0,31.0,41.0,250.55555\n"
        "3,0.00098,1e-06,29.0,39.0,30.0,40.0,240.0\n"
    )
    return path


@pytest.fixture
def evidence():
    """Scores, and one aligned pair: image row 1 and caption row 3, "test-0 second" in six tokens."""
    weights = np.array([[0, 0.9, 0.5, 0.5, 0.2, 0.6, 0], [0, 0.1, 0.5, 0.5, 0.8, 0.4, 0]])
    return Evidence(
        matches=np.array([0.9, 0.8, 0.7, 0.2], dtype=np.float32),
        non_matches=np.array([0.1, 0.2, 0.3, 0.75, 0.0], dtype=np.float32),
        pairs=np.array([[1, 3]]),
        sizes=np.array([[2, 7]]),
        weights=weights.ravel().astype(np.float16),
        captions=np.array([3]),
        lengths=np.array([7]),
        spans=np.array([(0, 0), (0, 4), (4, 5), (5, 6), (7, 10), (10, 13), (0, 0)], dtype=np.int32),
        boxes=np.zeros((0, 4), dtype=np.float32),
        occlusion=np.array(False),
    )


@pytest.fixture
def without_alignments(evidence):
    """The same of a model that has none."""
    empty = {
        name: getattr(evidence, name)[:0] for name in ("pairs", "sizes", "weights", "captions", "lengths", "spans")
    }
    return replace(evidence, **empty)


def _write_regions(folder: Path, rows: int, backend: str) -> FeatureStore:
    """One named region and one without a name per image; the weaker one first."""
    arrays = {"features": ("float16", (2,)), "boxes": ("float32", (4,)), "scores": ("float32", ())}
    writer = StoreWriter(folder, {**arrays, "classes": ("int16", ()), "attributes": ("int16", ())})
    for row in range(rows):
        writer.append(
            {
                "features": np.zeros((2, 2)),
                "boxes": np.array([(0, 0, 1, 1), BOX]),
                "scores": np.array([0.1, 0.9]),
                "classes": np.array([-1, row % 2]),
                "attributes": np.array([-1, 0]),
            }
        )
    writer.close({"backend": backend, "classes": ["circle", "<b>square"], "attributes": ["red"]})
    return FeatureStore(folder)


@pytest.fixture
def write_regions():
    """Writes a region store: folder, rows, backend."""
    return _write_regions


@pytest.fixture
def material(tmp_path, results, evidence):
    """A training image first, so that rows of split and dataset differ; then 4 images and 2 probe pairs."""
    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    names = ["train-0", *(f"test-{n}" for n in range(4)), *(f"probe-{n}" for n in range(4))]
    sizes = [(40, 40), (400, 200), (100, 300), (64, 64), (90, 60), *[(50, 50)] * 4]
    records = []
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        image = Image.new("RGB", size, (40 + 20 * number, 90, 200 - 20 * number))
        ImageDraw.Draw(image).ellipse((5, 5, 30, 30), fill="red")
        image.save(folder / "images" / f"{name}.png")
        split = name.split("-")[0]
        captions = (f"{name} probed",) if split == "probe" else (f"{name} first", f"{name} second")
        records.append(ImageRecord(name, f"images/{name}.png", split, *size, captions))
    first = records[1]
    records[1] = ImageRecord(first.id, first.path, first.split, first.width, first.height, (NASTY, "test-0 second"))
    write_dataset(folder, "tiny", records)
    dataset = read_dataset(folder)
    regions = _write_regions(tmp_path / "regions", len(records), "torchvision")
    return Material(dataset, split_rows(dataset, "test"), results, regions, evidence)
