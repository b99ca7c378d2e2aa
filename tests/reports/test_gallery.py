import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from assertions import raises_naming
from PIL import Image

from crossmodal.reports.gallery import write_gallery
from crossmodal.reports.sheets import RIGHT
from crossmodal.retrieval.results import summary


def write(material, folder, *, queries=24, title="Model <on> tiny", **changes):
    reader = material.reader(**changes)
    metrics = summary(reader.results)
    return write_gallery(folder, reader, metrics=metrics, title=title, queries=queries)


@pytest.fixture
def page(material, tmp_path, read_page):
    return read_page(write(material, tmp_path / "out").read_text(encoding="utf-8"))


def test_every_caption_is_there_and_escaped(material, tmp_path, read_page):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    page = read_page(text)
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


def test_nothing_is_loaded_from_outside(material, tmp_path, read_page):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    links = read_page(text).links
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


def test_a_store_of_another_dataset_is_refused(material, write_regions, tmp_path):
    other = write_regions(tmp_path / "other", 3, "torchvision")
    with raises_naming(other.folder, "3 rows", material.dataset.folder, f"{len(material.dataset.records)} images"):
        write(material, tmp_path / "out", regions=other)


def test_words_and_the_regions_that_answer_them(material, tmp_path, read_page):
    text = write(material, tmp_path / "out").read_text(encoding="utf-8")
    answers = json.loads(re.search(r'id="answers">(.*?)</script>', text)[1])
    # "test", "-", "0" and "second": see the fixture
    assert answers["answers"] == {"1-3": [[[0, 9]], [], [], [[1, 9]]]}
    assert answers["boxes"] == {"1": [[0, 0, 1000, 1000], [round(1000 * value) for value in material.box]]}
    assert re.search(r'data-caption="3" tabindex="0"><span data-word="0">test</span><span data-word="1">-</span>', text)
    (example,) = read_page(text).of("words")
    assert example["classes"] == ["card", "miss"] and "right image at rank 2" in example["text"]
    assert [box["class"] for box in example["boxes"]] == ["region-0", "region-1"]
    assert '<span data-word="3" class="region-1" title="region 2">second</span>' in text


def test_models_without_alignments_have_plain_words(material, tmp_path, without_alignments):
    text = write(material, tmp_path, evidence=without_alignments).read_text(encoding="utf-8")
    assert "data-word=" not in text and 'id="answers"' not in text and 'value="words"' not in text
    assert not (tmp_path / "regions-and-words.png").exists()


def test_occlusion_is_named(material, tmp_path, evidence):
    by_alignment = write(material, tmp_path / "0", evidence=evidence).read_text(encoding="utf-8")
    by_occlusion = write(material, tmp_path / "1", evidence=replace(evidence, occlusion=np.array(True)))
    assert "occlusion" not in by_alignment
    assert by_occlusion.read_text(encoding="utf-8").count("occlusion") == 2


def test_the_same_bytes_twice(material, tmp_path):
    for folder in ("once", "twice"):
        write(material, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert names == ["gallery.html", "image-to-text.png", "regions-and-words.png", "text-to-image.png"]
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_sheets_open_and_frame_the_right_image(material, tmp_path):
    write(material, tmp_path, title="A long title " * 12)
    green = tuple(int(RIGHT[place : place + 2], 16) for place in (1, 3, 5))
    for name in ("text-to-image.png", "image-to-text.png", "regions-and-words.png"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert pixels.shape[1] == 1600
        assert (pixels[0, 0] == 255).all()
        if name != "regions-and-words.png":  # its one caption is a miss
            assert (np.abs(pixels - green).max(axis=2) <= 4).sum() > 100


def test_right_captions_are_marked(page, material):
    for query, found, number in zip(page.of("i2t"), material.results.i2t_top, range(4), strict=True):
        marked = [classes == ["right"] for classes, text in query["tiles"] if re.match(r"\d", text)]
        assert marked == [caption // 2 == number for caption in found]
    assert "−0.500" in page.of("i2t")[3]["text"]
