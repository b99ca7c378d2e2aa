"""Miniatures of Winoground, SugarCrepe, ARO and VALSE in their layouts, and files of one's own."""

import csv
import json

import pytest
from assertions import raises_naming

from crossmodal.datasets.contrasts import Contrast, Shown, read_contrasts

WINOGROUND = {
    "id": 0,
    "image_0": "ex_0_img_0",
    "image_1": "ex_0_img_1",
    "caption_0": "an old person kisses a young person",
    "caption_1": "a young person kisses an old person",
    "tag": "Adjective-Age",
    "secondary_tag": "",
    "num_main_preds": 1,
    "collapsed_tag": "Object",
}
SUGARCREPE = {
    "0": {"filename": "000000085329.jpg", "caption": "A dog.", "negative_caption": "A dog and a cat."},
    "1": {"filename": "000000085330.jpg", "caption": "A bus.", "negative_caption": "A red bus."},
}
ARO = {
    "image_id": 2325456,
    "relation_id": 3187384,
    "image_path": "2325456.jpg",
    "relation_name": "above",
    "true_caption": "the clouds are above the tree",
    "false_caption": "the tree is above the clouds",
    "bbox_x": 2,
    "bbox_y": 3,
    "bbox_w": 10,
    "bbox_h": 20,
}
VALSE = {
    "dataset": "SWiG",
    "original_split": "test",
    "dataset_idx": "exercising_255.jpg",
    "linguistic_phenomena": "actions",
    "image_file": "exercising_255.jpg",
    "caption": "A man exercises his torso.",
    "classes": "man",
    "classes_foil": "torso",
    "mturk": {"foil": 0, "caption": 3, "other": 0},
    "foil": "A torso exercises for a man.",
}


@pytest.fixture
def write(tmp_path):
    """Writes a file and empty images; reads the examples."""

    def _write(name, content, *images):
        for image in images:
            (tmp_path / image).parent.mkdir(exist_ok=True)
            (tmp_path / image).touch()
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return _write


def test_winoground(write, tmp_path):
    path = write("examples.jsonl", json.dumps(WINOGROUND) + "\n", "images/ex_0_img_0.png", "images/ex_0_img_1.png")
    (found,) = read_contrasts(path, tmp_path / "images")
    assert found.images == tuple(Shown(tmp_path / f"images/ex_0_img_{n}.png") for n in (0, 1))
    assert found.captions == (WINOGROUND["caption_0"], WINOGROUND["caption_1"])
    assert found.kind == "Object"


def test_sugarcrepe(write, tmp_path):
    path = write("add_obj.json", json.dumps(SUGARCREPE), "000000085329.jpg", "000000085330.jpg")
    found = read_contrasts(path)
    assert [part.captions for part in found] == [("A dog.", "A dog and a cat."), ("A bus.", "A red bus.")]
    assert [part.right for part in found] == [0, 0] and found[1].images == (Shown(tmp_path / "000000085330.jpg"),)


def test_aro(write, tmp_path):
    attribution = {key: value for key, value in ARO.items() if key != "relation_name"}
    attribution |= {"attributes": ["large", "white"], "true_caption": "the large house", "false_caption": "the white"}
    path = write("visual_genome_relation.json", json.dumps([ARO, attribution]), "2325456.jpg")
    relation, other = read_contrasts(path)
    assert relation.images == (Shown(tmp_path / "2325456.jpg", (2, 3, 10, 20)),)
    assert relation.captions == ("the clouds are above the tree", "the tree is above the clouds")
    assert (relation.kind, other.kind) == ("above", "large_white")


def test_valse_keeps_the_foils_that_annotators_took_for_wrong(write):
    content = {"a": VALSE, "b": VALSE | {"mturk": {"foil": 1, "caption": 1, "other": 1}, "caption": "No."}}
    (found,) = read_contrasts(write("actant-swap.json", json.dumps(content), "exercising_255.jpg"))
    assert found.captions == (VALSE["caption"], VALSE["foil"]) and found.kind == "actions"


def test_a_list_of_ones_own(write, tmp_path):
    items = [{"image": "a.png", "captions": ["x", "y", "z"], "right": 2, "kind": "order"}]
    expected = Contrast("", "order", (Shown(tmp_path / "a.png"),), ("x", "y", "z"), 2)
    (found,) = read_contrasts(write("own.json", json.dumps(items), "a.png"))
    assert found == Contrast(found.name, *list(vars(expected).values())[1:])


def test_a_table_of_ones_own(write, tmp_path):
    path = write("own.csv", "", "a.png")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows(
            [
                ["image", "caption_0", "caption_1", "caption_2", "right"],
                ["a.png", "one, with a comma", "two", "three", 1],
                ["a.png", "one", "two\nlines", "", ""],
            ]
        )
    first, second = read_contrasts(path)
    assert first.captions == ("one, with a comma", "two", "three") and first.right == 1
    assert second.captions == ("one", "two\nlines") and second.right == 0


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[]", ("no examples", "Winoground", "image and captions")),
        ("3", ("Winoground", "image and captions")),
        ('[{"image": "a.png"}]', ("example 0", "Winoground", "image and captions", "found image")),
        ('[{"image": "a.png", "caption": "x", "foil": ""}]', ("example 0", "caption ''", "text")),
        ('[{"image": "a.png", "captions": ["x", "y"], "right": 2}]', ("example 0", "right 2", "0 to 1")),
        ('[{"image": "a.png", "captions": ["x", "y"], "right": "no"}]', ("example 0", "right 'no'", "a number")),
        ('[{"image": "b.png", "captions": ["x", "y"]}]', ("example 0", "/b.png", "--images")),
        ('[{"image": 5, "captions": ["x", "y"]}]', ("example 0", "image 5", "a file")),
        (
            '[{"image": "a.png", "captions": ["x", "y"]},'
            ' {"image_0": "a", "image_1": "a", "caption_0": "x", "caption_1": "y"}]',
            ("one image", "of two"),
        ),
        (
            '[{"image_path": "a.png", "true_caption": "x", "false_caption": "y",'
            ' "bbox_x": 0, "bbox_y": 0, "bbox_w": 0, "bbox_h": 4}]',
            ("example 0", "box (0.0, 0.0, 0.0, 4.0)", "from 0", "above 0"),
        ),
        (
            '[{"image": "a.png", "captions": ["x", "y"], "right": 1' + "0" * 400 + "}]",
            ("example 0", "right", "a number"),
        ),
        ('[{"image": "a.png", "captions": ["x", "y"], "right": NaN}]', ("example 0", "right nan", "a number")),
        (
            '[{"image": "a.png", "caption": "x", "foil": "y", "mturk": {"caption": NaN}}]',
            ("example 0", "mturk.caption"),
        ),
        ('[{"image": "' + "a" * 300 + '", "captions": ["x", "y"]}]', ("example 0", "image 'aaa", "too long")),
        (
            '[{"image": "a.png", "caption_0": "", "caption_1": "x", "caption_2": "y", "right": 1}]',
            ("example 0", "caption_1, caption_2", "caption_0"),
        ),
        (
            '[{"image": "a.png", "caption_0": "x", "caption_00": "x", "caption_1": "y"}]',
            ("example 0", "caption_0, caption_00", "twice"),
        ),
    ],
)
def test_what_is_no_example_is_named(write, content, parts):
    path = write("own.json", content, "a.png")
    with raises_naming(path, *parts) as error:
        read_contrasts(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e300", "null"])
@pytest.mark.parametrize("key", ["bbox_x", "bbox_w"])
def test_a_box_that_is_none_is_named(write, key, value):
    spoiled = json.dumps([ARO | {key: "HERE"}]).replace('"HERE"', value)
    path = write("own.json", spoiled, "2325456.jpg")
    with raises_naming(path, "example 0", "box" if value == "1e300" else key):
        read_contrasts(path)


def test_a_box_of_which_a_part_is_missing_is_named(write):
    path = write("own.json", json.dumps([{key: ARO[key] for key in ARO if key != "bbox_h"}]), "2325456.jpg")
    with raises_naming(path, "example 0", "bbox_h"):
        read_contrasts(path)


HEAD = "image,caption,foil\na.png,one,two\n"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (HEAD + "a.png,a dog, running,a cat running\n", ("line 3", "4 columns", "3", "quoted")),
        (HEAD + "a.png,a dog\n", ("line 3", "2 columns", "3")),
        (HEAD + 'a.png,a man,"a woman\na.png,x,y\na.png,z,w\n', ("line 3", "unexpected end")),
        (HEAD + 'a.png,a man,"a woman\na.png,x,y"\na.png,z,w\n', ("line 3", "quotation mark")),
        (HEAD + 'a.png,a man,"a woman" runs\n', ("line 3", "expected after")),
        ("image,caption,foil,caption\na.png,x,y,z\n", ("line 1", "'caption' twice")),
        ("image,caption_0,caption_1,caption_2,right\na.png,,x,y,1\n", ("line 2", "caption_1, caption_2")),
        ("image,caption_0,caption_1,right\na.png,x,y,1" + "0" * 400 + "\n", ("line 2", "right")),
    ],
)
def test_a_row_that_is_none_is_named(write, content, parts):
    """A comma too many would cut the foil, and a mark too few take rows away."""
    path = write("own.csv", content, "a.png")
    with raises_naming(path, *parts) as error:
        read_contrasts(path)
    assert "\n" not in str(error.value)


def test_lines_of_a_table_end_where_lines_end(write):
    """Not at a line separator within a caption; cells that a spreadsheet appends are none."""
    path = write("own.csv", "image,caption,foil\n\na.png,one\u2028 two,three\x85four,,\n", "a.png")
    (found,) = read_contrasts(path)
    assert found.captions == ("one\u2028 two", "three\x85four")
    assert found.name.endswith("line 3")
