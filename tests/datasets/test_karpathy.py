"""Flickr30k and COCO from miniature archives in the published layouts, over HTTP; the true captions where present."""

import dataclasses
import functools
import gzip
import hashlib
import importlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from assertions import raises_naming
from PIL import Image

from crossmodal.datasets.assemble import Published, build_published
from crossmodal.datasets.karpathy import read_captions
from crossmodal.datasets.published import FLICKR30K_FORM, PUBLISHED
from crossmodal.datasets.records import Skipped, read_dataset
from crossmodal.settings.datasets import Download

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "captions"
needs_captions = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the captions of Flickr30k and COCO (../shared/captions) are not here"
)


@functools.cache  # noise: another one each time
def jpeg(number):
    buffer = io.BytesIO()
    Image.effect_noise((20 + number, 30), 60).save(buffer, "JPEG")
    return buffer.getvalue()


def image(name, split, captions, **more):
    """An image as Karpathy's files list it."""
    sentences = [
        {"tokens": text.lower().split(), "raw": text, "imgid": 0, "sentid": row} for row, text in enumerate(captions)
    ]
    return {"sentids": [0], "imgid": 0, "sentences": sentences, "split": split, "filename": name, **more}


def five(name):
    return tuple(f"Caption {number} of {name}." for number in range(5))


def karpathy_json(name, images):
    return json.dumps({"images": images, "dataset": name}).encode()


FLICKR = {"30.jpg": "train", "10.jpg": "test", "20.jpg": "train", "5.jpg": "val", "7.jpg": "train", "8.jpg": "train"}
PHOTOGRAPHS = {name: jpeg(number) for number, name in enumerate(FLICKR)}
COCO = [("train2014", 9, "train"), ("val2014", 42, "restval"), ("val2014", 7, "test"), ("val2014", 8, "val")]


def coco_name(folder, number):
    return f"COCO_{folder}_{number:012d}.jpg"


def flickr_json():
    return karpathy_json("flickr30k", [image(name, split, five(name)) for name, split in FLICKR.items()])


def flickr_tar(photographs=PHOTOGRAPHS):
    """flickr30k-images.tar.gz: a folder with all photographs, those of no split as well."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("flickr30k-images")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in {**photographs, "unused.jpg": b"in no split"}.items():
            info = tarfile.TarInfo(f"flickr30k-images/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def coco_files():
    """caption_datasets.zip, train2014.zip and val2014.zip."""
    images, folders = [], {"train2014": {}, "val2014": {}}
    for place, (folder, number, split) in enumerate(COCO):
        name = coco_name(folder, number)
        captions = [*five(name), "A  sixth one.\n"] if split == "test" else five(name)
        images.append(image(name, split, captions, filepath=folder, cocoid=number))
        folders[folder][f"{folder}/{name}"] = jpeg(place)
    members = {f"dataset_{name}.json": b"{}" for name in ("flickr8k", "flickr30k")}
    text = zipped(members | {"dataset_coco.json": karpathy_json("coco", images)})
    return {"caption_datasets.zip": text} | {f"{name}.zip": zipped(content) for name, content in folders.items()}


@pytest.fixture
def stage(tmp_path, monkeypatch, capsys):
    """Run the download stage with changed settings; returns the dataset and what was printed."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)

    def run(dataset, section=None, **download):
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["dataset"] = dataset
        params[dataset] |= section or {}
        params["download"] |= download
        Path("params.yaml").write_text(yaml.safe_dump(params))
        importlib.import_module("stages.download").main()
        return read_dataset(Path("data/dataset")), capsys.readouterr().out

    return run


def public(published, url, files):
    """The dataset with its files at other addresses, and their checksums."""

    def moved(archive):
        content = files.get(archive.name, b"")
        hashes = (f"sha256:{hashlib.sha256(content).hexdigest()}",)
        return dataclasses.replace(
            archive, urls=(f"{url}/missing/{archive.name}", f"{url}/{archive.name}"), hashes=hashes
        )

    captions = tuple(moved(archive) for archive in published.captions)
    return Published(published.name, captions, tuple((moved(forms[0]),) for forms in published.photographs))


def test_flickr30k_from_a_mirror(server, stage):
    photographs = flickr_tar()
    server.files = {"dataset_flickr30k.json": flickr_json(), "flickr30k-images.tar.gz": photographs}
    dataset, output = stage("flickr30k", mirror=f"{server.url}/ok")
    assert [record.id for record in dataset.records] == ["30", "20", "7", "8", "5", "10"]  # the file's order
    assert [record.split for record in dataset.records] == ["train"] * 4 + ["val", "test"]
    for record in dataset.records:
        assert (dataset.folder / record.path).read_bytes() == PHOTOGRAPHS[f"{record.id}.jpg"]
        assert record.captions == five(f"{record.id}.jpg")
    assert sorted(path.name for path in (dataset.folder / "images").iterdir()) == sorted(PHOTOGRAPHS)
    assert dataset.sources["flickr30k-images.tar.gz"] == f"sha256:{hashlib.sha256(photographs).hexdigest()}"
    assert dataset.sources["dataset_flickr30k.json"].endswith("(not the published archive)")
    assert (dataset.skipped, dataset.duplicates) == ((), ())
    assert "flickr30k: train 4 images, 20 captions; val 1 images, 5 captions; test 1 images, 5 captions, in" in output


def test_flickr30k_from_a_folder_that_holds_a_zip(stage, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "caption_datasets.zip").write_bytes(zipped({"dataset_flickr30k.json": flickr_json()}))
    members = {f"flickr30k-images/{name}": content for name, content in PHOTOGRAPHS.items()}
    (mirror / "flickr30k-images.zip").write_bytes(zipped(members))
    dataset, _ = stage("flickr30k", {"max_images": 2}, mirror="mirror", offline=True, keep_archives=False)
    assert [record.id for record in dataset.records] == ["30", "20", "5", "10"]
    assert len(list(mirror.iterdir())) == 2  # a mirror is the user's
    assert not (tmp_path / ".resume/downloads").exists()


def test_flickr30k_without_photographs_says_what_to_do(stage, capsys):
    """Before anything is downloaded."""
    with pytest.raises(SystemExit) as caught:
        stage("flickr30k", mirror=".")
    message = capsys.readouterr().err
    assert caught.value.code == 2
    for part in ("flickr30k-images.tar.gz", "4.4 GB", FLICKR30K_FORM, "set download.mirror"):
        assert part in message
    assert not Path("data").exists()


def test_bad_items_of_flickr30k(stage, tmp_path):
    images = [image(name, split, five(name)) for name, split in FLICKR.items()]
    images += [image("gone.jpg", "train", five("gone.jpg")), image("30.jpg", "test", five("30.jpg"))]
    images += [image("silent.jpg", "train", []), image("half.jpg", "train", ["one", " "])]
    photographs = PHOTOGRAPHS | {"8.jpg": PHOTOGRAPHS["8.jpg"][:-200], "7.jpg": PHOTOGRAPHS["10.jpg"]}
    photographs |= {"silent.jpg": jpeg(50), "half.jpg": jpeg(51)}
    (tmp_path / "dataset_flickr30k.json").write_bytes(karpathy_json("flickr30k", images))
    (tmp_path / "flickr30k-images.tar.gz").write_bytes(flickr_tar(photographs))
    dataset, output = stage("flickr30k", mirror=".")
    assert [record.id for record in dataset.records] == ["30", "20", "7", "half", "5", "10"]
    assert {item.item: item.reason.split(" (")[0] for item in dataset.skipped} == {
        "30.jpg": "listed twice, images[7]",
        "half.jpg sentence 1": "empty caption",
        "8.jpg": "unreadable image",
        "gone.jpg": "not in flickr30k-images.tar.gz; its 5 captions go with it",
        "silent.jpg": "no caption in dataset_flickr30k.json",
    }
    assert dataset.duplicates == (("7", "10"),)  # one in train, one in test: reported, not removed
    assert "5 items skipped, see manifest.json; the same picture more than once: 1" in output
    with pytest.raises(SystemExit):
        stage("flickr30k", mirror=".", max_bad=4)


def test_coco_from_public_addresses(server, stage, monkeypatch, tmp_path):
    server.files = coco_files()
    monkeypatch.setitem(PUBLISHED, "coco", public(PUBLISHED["coco"], server.url, server.files))
    dataset, output = stage("coco")
    assert [record.id for record in dataset.records] == ["9", "42", "8", "7"]
    assert [record.split for record in dataset.records] == ["train", "train", "val", "test"]
    assert [len(record.captions) for record in dataset.records] == [5, 5, 5, 5]
    names = [coco_name(folder, number) for folder, number, _ in COCO]
    assert sorted(path.name for path in (dataset.folder / "images").iterdir()) == sorted(names)
    for place, (folder, number, _) in enumerate(COCO):
        assert (dataset.folder / "images" / coco_name(folder, number)).read_bytes() == jpeg(place)
    assert set(dataset.sources) == {"caption_datasets.zip", "train2014.zip", "val2014.zip"}
    assert dataset.skipped == ()
    kept = sorted(path.name for path in (tmp_path / ".resume/downloads").iterdir() if path.suffix != ".lock")
    assert kept == sorted(server.files)

    dataset, output = stage("coco", {"restval": False, "captions": 0}, offline=True, keep_archives=False)
    assert [record.id for record in dataset.records] == ["9", "8", "7"]
    assert dataset.records[2].captions == (*five(coco_name("val2014", 7)), "A sixth one.")
    assert "download: removed" in output
    assert not [path for path in (tmp_path / ".resume/downloads").iterdir() if path.suffix != ".lock"]


def test_a_killed_run_goes_on(stage, tmp_path, monkeypatch):
    """Killed when the photographs are unpacked, beside one that is no longer wanted and one that is half written."""
    for name, content in coco_files().items():
        (tmp_path / name).write_bytes(content)

    def kill(paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("crossmodal.datasets.assemble.check_images", kill)
        with pytest.raises(SystemExit):
            stage("coco", mirror=".")
    (images,) = tmp_path.glob(".resume/download/*/out/images")
    before = {path.name: path.stat().st_ino for path in images.iterdir()}
    assert len(before) == 4
    (images / "other.jpg").write_bytes(jpeg(60))
    (images / ".unpacking").write_bytes(b"half")
    dataset, _ = stage("coco", mirror=".")
    assert {path.name: path.stat().st_ino for path in (dataset.folder / "images").iterdir()} == before


def test_damaged_photograph_of_coco(tmp_path):
    files = coco_files()
    broken = files["val2014.zip"].replace(jpeg(1), jpeg(1)[:-9] + b"!" * 9)
    assert broken != files["val2014.zip"]
    for name, content in (files | {"val2014.zip": broken}).items():
        (tmp_path / name).write_bytes(content)
    download = Download(mirror=str(tmp_path), offline=True, keep_archives=True, max_bad=1)
    read = functools.partial(read_captions, name="coco", restval=True)
    build_published(tmp_path / "out", PUBLISHED["coco"], read, download, tmp_path / "cache")
    (item,) = read_dataset(tmp_path / "out").skipped
    assert item.item == coco_name("val2014", 42)
    assert item.reason.startswith("damaged in val2014.zip (Bad CRC-32")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'{"images": [}', ("JSON", "column 13")),
        (b'{"annotations": []}', ('{"images"', '"coco"')),
        (b"[]", ('{"images"', '"coco"')),
        (karpathy_json("flickr8k", []), ("'flickr8k'", "'coco'")),
        (
            karpathy_json("coco", [{"filename": "a.jpg"}]),
            ("images[0]", "KeyError('split'"),
        ),
        (karpathy_json("coco", ["a.jpg"]), ("images[0]", "Karpathy's", "TypeError")),
        (
            karpathy_json("coco", [image("a.jpg", "train", ["x"]), image("../b.jpg", "val", ["y"])]),
            ("images[1]", "'../b.jpg'", "'val'"),
        ),
        (karpathy_json("coco", [image("a.jpg", "dev", ["x"])]), ("images[0]", "'a.jpg'", "split 'dev'")),
    ],
)
def test_captions_that_cannot_be_used(tmp_path, content, parts):
    path = tmp_path / "dataset_coco.json"
    path.write_bytes(content)
    with raises_naming(path, *parts):
        read_captions(path, "coco")


def test_zip_without_the_dataset(tmp_path):
    path = tmp_path / "caption_datasets.zip"
    path.write_bytes(zipped({"dataset_flickr8k.json": b"{}"}))
    with raises_naming("caption_datasets.zip", "dataset_coco.json"):
        read_captions(path, "coco")


def test_white_space_of_captions(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_bytes(karpathy_json("coco", [image("a.jpg", "train", [" A  dog.\n", "\n"], cocoid=1)]))
    (entry,), skipped = read_captions(path, "coco")
    assert (entry.id, entry.captions) == ("1", ("A dog.",))
    assert skipped == [Skipped("a.jpg sentence 1", "empty caption")]


def test_items_that_cannot_be_stored(tmp_path):
    """Half a character, and an id that another photograph has: each is left out by name, the others stay."""
    images = [
        image("a.jpg", "train", ["one", "half \ud83d", "two"], cocoid=1),
        image("b.jpg", "val", ["other"], cocoid=1.0),
        image("c\udcff.jpg", "val", ["c"], cocoid=3),
        image("d.jpg", "test", ["d", "d"], cocoid=4),
    ]
    (tmp_path / "a.json").write_bytes(karpathy_json("coco", images))
    entries, skipped = read_captions(tmp_path / "a.json", "coco")
    assert [(entry.id, entry.file, entry.captions) for entry in entries] == [
        ("1", "a.jpg", ("one", "two")),
        ("4", "d.jpg", ("d", "d")),
    ]
    assert [item.item for item in skipped] == ["a.jpg sentence 1", "b.jpg", "images[2]"]


def true_captions(name, split):
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield image(row["image"], split, row["captions"])


@needs_captions
def test_split_counts_of_flickr30k(tmp_path):
    files = {"test": "flickr30k_test", "train": "flickr30k_train", "val": "flickr30k_val"}
    images = [item for split, name in files.items() for item in true_captions(f"{name}.jsonl.gz", split)]
    path = tmp_path / "dataset_flickr30k.json"
    path.write_bytes(karpathy_json("flickr30k", images))
    entries, skipped = read_captions(path, "flickr30k")
    assert Counter(entry.split for entry in entries) == {"train": 29_000, "val": 1_014, "test": 1_000}
    assert {len(entry.captions) for entry in entries} == {5}
    assert len({entry.file for entry in entries}) == 31_014
    assert skipped == []
    assert [entry.id for entry in entries if entry.split == "test"] == [
        Path(item["filename"]).stem for item in images if item["split"] == "test"
    ]


@needs_captions
def test_test_split_of_coco(tmp_path):
    images = list(true_captions("coco_karpathy_test_5k.jsonl.gz", "test"))
    for item in images:
        item["cocoid"] = int(Path(item["filename"]).stem.rpartition("_")[2])
    path = tmp_path / "dataset_coco.json"
    path.write_bytes(karpathy_json("coco", images))
    entries, skipped = read_captions(path, "coco", captions=5)
    assert len(entries) == len({entry.id for entry in entries}) == 5_000
    assert {(entry.split, len(entry.captions)) for entry in entries} == {("test", 5)}
    assert [list(entry.captions) for entry in entries] == [[s["raw"] for s in item["sentences"]] for item in images]
    assert skipped == []
