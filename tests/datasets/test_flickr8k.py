"""Flickr8k from miniature archives with every kind of bad item, and from the real ones where they are."""

import importlib
import io
import json
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import yaml
from assertions import raises_naming
from PIL import Image

from crossmodal.datasets.assemble import SPLITS as NAMES
from crossmodal.datasets.assemble import build_published
from crossmodal.datasets.flickr8k import CAPTIONS, MEMBERS, parse_captions, read_flickr8k
from crossmodal.datasets.published import PUBLISHED
from crossmodal.datasets.records import Skipped, read_dataset
from crossmodal.settings.datasets import Download

SPLIT_FILES = {split: MEMBERS[split] for split in NAMES}
ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
needs_archives = pytest.mark.skipif(
    not (SHARED / "flickr8k").is_dir(), reason="the real Flickr8k archives (../shared/flickr8k) are not here"
)
needs_sample = pytest.mark.skipif(
    not (SHARED / "flickr8k_sample").is_dir(),
    reason="full-size images (../shared/flickr8k_sample) are not here",
)


def jpeg(width, height, colour):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


SPLITS = {
    "train": ["t3.jpg", "t1.jpg", "cut.jpg", "t2.jpg", "gone.jpg", "silent.jpg", "text.jpg"],
    "val": ["v1.jpg", "v2.jpg"],
    "test": ["s1.jpg"],
}
GOOD = ["t1.jpg", "t2.jpg", "t3.jpg", "v1.jpg", "v2.jpg", "s1.jpg"]
PHOTOGRAPHS = {name: jpeg(40 + number, 30, 60) for number, name in enumerate(GOOD)}
PHOTOGRAPHS |= {
    "cut.jpg": jpeg(64, 64, 99)[:-200],
    "silent.jpg": jpeg(8, 8, 50),
    "text.jpg": b"not an image",
    "unused.jpg": jpeg(8, 8, 50),
}


def captions():
    lines = []
    for name in [*GOOD, "cut.jpg", "gone.jpg", "text.jpg", "unused.jpg", "nowhere.jpg.1"]:
        lines += [f"{name}#{number}\tcaption {number} of {name} ." for number in range(5)]
    lines[lines.index("t2.jpg#3\tcaption 3 of t2.jpg .")] = "t2.jpg#3\t "
    return lines


def write_archives(folder, splits=SPLITS, photographs=PHOTOGRAPHS, lines=None, spoil=None):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "Flickr8k_Dataset.zip", "w") as archive:
        archive.mkdir("Flicker8k_Dataset")
        for name, content in photographs.items():
            archive.writestr(f"Flicker8k_Dataset/{name}", content)
            archive.writestr(f"__MACOSX/Flicker8k_Dataset/{name}", b"what macOS adds")
    members = {CAPTIONS: "\n".join(captions() if lines is None else lines)}
    members |= {SPLIT_FILES[split]: "\n".join(names) for split, names in splits.items()}
    members |= spoil or {}
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def build(tmp_path, max_images=0, max_bad=10):
    folder = tmp_path / "dataset"
    folder.mkdir(exist_ok=True)
    download = Download(mirror=str(tmp_path / "mirror"), offline=False, keep_archives=True, max_bad=max_bad)
    build_published(
        folder, PUBLISHED["flickr8k"], partial(read_flickr8k, max_images=max_images), download, tmp_path / "cache"
    )
    return read_dataset(folder)


@pytest.fixture
def mirror(tmp_path):
    """Folder of miniature archives."""
    write_archives(tmp_path / "mirror")
    return tmp_path / "mirror"


def test_records_and_skipped_items(tmp_path, mirror):
    dataset = build(tmp_path)
    assert [record.id for record in dataset.records] == ["t3", "t1", "t2", "v1", "v2", "s1"]
    assert [record.split for record in dataset.records] == ["train"] * 3 + ["val"] * 2 + ["test"]
    for record in dataset.records:
        content = (dataset.folder / record.path).read_bytes()
        assert content == PHOTOGRAPHS[f"{record.id}.jpg"]
        assert (record.width, record.height) == Image.open(io.BytesIO(content)).size
    assert dataset.records[0].captions == tuple(f"caption {number} of t3.jpg ." for number in range(5))
    assert dataset.records[2].captions == tuple(f"caption {number} of t2.jpg ." for number in (0, 1, 2, 4))
    reasons = {item.item: item.reason for item in dataset.skipped}
    assert list(reasons) == ["t2.jpg#3", "cut.jpg", "gone.jpg", "silent.jpg", "text.jpg"]
    assert reasons["t2.jpg#3"] == "empty caption"
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["gone.jpg"] == "not in Flickr8k_Dataset.zip; its 5 captions go with it"
    assert reasons["silent.jpg"] == "no caption in Flickr8k.token.txt"
    assert reasons["text.jpg"] == "no image; its 5 captions go with it"
    written = {path.name for path in (dataset.folder / "images").iterdir()}
    assert written == set(GOOD)
    assert set(dataset.sources) == {"Flickr8k_Dataset.zip", "Flickr8k_text.zip"}
    assert all(source.endswith("(not the published archive)") for source in dataset.sources.values())


def test_max_images_keeps_the_first_of_each_split(tmp_path, mirror):
    dataset = build(tmp_path, max_images=2)
    assert [record.id for record in dataset.records] == ["t3", "t1", "v1", "v2", "s1"]
    assert dataset.skipped == ()


def test_damaged_member_is_a_bad_item(tmp_path, mirror):
    path = mirror / "Flickr8k_Dataset.zip"
    content = path.read_bytes()
    broken = content.replace(PHOTOGRAPHS["t1.jpg"], PHOTOGRAPHS["t1.jpg"][:-9] + b"!" * 9)
    assert broken != content
    path.write_bytes(broken)
    reasons = {item.item: item.reason for item in build(tmp_path).skipped}
    assert reasons["t1.jpg"].startswith("damaged in Flickr8k_Dataset.zip (Bad CRC-32")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        ({CAPTIONS: None}, (CAPTIONS, "not found")),
        ({CAPTIONS: b"\xff\xfe\x00"}, (CAPTIONS, "UTF-8", "0xff")),
        ({SPLIT_FILES["test"]: "t1.jpg"}, (SPLIT_FILES["test"], "t1.jpg", "twice", "in train")),
        ({SPLIT_FILES["test"]: "gone2.jpg"}, (SPLIT_FILES["test"], "usable", "split test")),
    ],
)
def test_text_archive_that_cannot_be_used(tmp_path, spoil, parts):
    write_archives(tmp_path / "mirror", spoil=spoil)
    member, *others = parts
    with raises_naming(f"{tmp_path / 'mirror/Flickr8k_text.zip'}, member {member}", *others):
        build(tmp_path)


def test_captions_of_other_forms():
    lines = [
        "a.jpg#1\tsecond",
        "",
        "a.jpg#0\t first ",
        "a.jpg#0\tagain",
        "a.jpg no tab",
        "a.jpg#x\tno number",
        "b.jpg#0\t",
    ]
    found, skipped = parse_captions(lines, {"a.jpg", "b.jpg"})
    assert found == {"a.jpg": ("first", "second")}
    assert skipped == [
        Skipped("a.jpg#0", "second caption of this number, Flickr8k.token.txt line 4"),
        Skipped("Flickr8k.token.txt line 5", "expected name#number<TAB>caption"),
        Skipped("Flickr8k.token.txt line 6", "expected name#number<TAB>caption"),
        Skipped("b.jpg#0", "empty caption"),
    ]


def test_a_caption_number_of_5000_digits():
    captions, skipped = parse_captions([f"a.jpg#{'7' * 5000}\tx", "a.jpg#1\ta\x0cb"], {"a.jpg"})
    assert captions == {"a.jpg": ("a\x0cb",)}
    assert [item.item for item in skipped] == ["Flickr8k.token.txt line 1"]


def test_stage_writes_the_dataset_whole_or_not_at_all(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    stage = importlib.import_module("stages.download")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["dataset"] = "flickr8k"
    params["download"] |= {"mirror": "mirror", "max_bad": 10}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for _ in range(2):  # the second time over the first one's dataset
        stage.main()
        output = capsys.readouterr().out
        assert "train 3 images, 14 captions; val 2 images, 10 captions; test 1 images, 5 captions" in output
        assert "5 items skipped" in output
        assert sorted(path.name for path in Path("data/dataset").iterdir()) == [
            "images",
            "manifest.json",
            "records.jsonl",
        ]

    params["download"]["max_bad"] = 1
    Path("params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(SystemExit) as caught:
        stage.main()
    assert caught.value.code == 2
    assert "\nerror: 5 bad items, more than download.max_bad 1" in capsys.readouterr().err  # below the warnings
    assert len(list(Path("data/dataset").iterdir())) == 3  # the former dataset is still whole


@needs_archives
def test_official_split_and_five_captions(tmp_path):
    """The text archive whole; of the photographs the first 20 of each split (all of them take 12 s)."""
    folder = tmp_path / "dataset"
    download = Download(mirror=str(SHARED / "flickr8k"), offline=False, keep_archives=True, max_bad=0)
    build_published(folder, PUBLISHED["flickr8k"], partial(read_flickr8k, max_images=20), download, tmp_path / "cache")
    dataset = read_dataset(folder)
    assert Counter(record.split for record in dataset.records) == {"train": 20, "val": 20, "test": 20}
    assert {len(record.captions) for record in dataset.records} == {5}
    assert dataset.records[0].captions[0] == "A black dog is running after a white dog in the snow ."

    with zipfile.ZipFile(SHARED / "flickr8k/Flickr8k_text.zip") as archive:
        text = {member: archive.read(member).decode() for member in archive.namelist()}
    names = {split: text[member].split() for split, member in SPLIT_FILES.items()}
    assert {split: len(set(own)) for split, own in names.items()} == {
        "train": 6000,
        "val": 1000,
        "test": 1000,
    }
    everyone = {name for own in names.values() for name in own}
    found, skipped = parse_captions(text[CAPTIONS].split("\n"), everyone)
    assert (len(everyone), len(found), skipped) == (8000, 8000, [])
    assert {len(own) for own in found.values()} == {5}


@needs_sample
def test_full_size_photographs(tmp_path):
    sample = SHARED / "flickr8k_sample"
    photographs = {path.name: path.read_bytes() for path in (sample / "Flicker8k_Dataset").iterdir()}
    spoil = {name: (sample / name).read_text() for name in (CAPTIONS, *SPLIT_FILES.values())}
    write_archives(tmp_path / "mirror", photographs=photographs, spoil=spoil)
    dataset = build(tmp_path, max_bad=0)
    assert Counter(record.split for record in dataset.records) == {"train": 30, "val": 10, "test": 20}
    assert Counter(record.width > record.height for record in dataset.records) == {True: 40, False: 20}
    assert json.loads((dataset.folder / "manifest.json").read_text())["skipped"] == []
    assert all(len(record.captions) == 5 for record in dataset.records)
