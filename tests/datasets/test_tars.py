"""Webdataset tars as a dataset: from this machine, from a server and from memory; what is damaged is named."""

import gzip
import io
import json
import tarfile

import fsspec
import pytest
from PIL import Image

from crossmodal.datasets.archives import webdataset
from crossmodal.datasets.archives.addresses import PROTOCOLS, expand_braces, find_tars, folder_names
from crossmodal.datasets.archives.webdataset import unpack_samples
from crossmodal.datasets.folder import build_folder
from crossmodal.datasets.records import read_dataset
from crossmodal.settings.datasets import Download, Folder
from tests.assertions import raises_naming


def picture(number, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (10 + number, 8), (number, 99, 7)).save(buffer, kind)
    return buffer.getvalue()


def packed(members):
    """Bytes of a tar; ``members``: pairs of a name, or a TarInfo, and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FIRST = packed(
    [
        ("0001.jpg", picture(1)),
        ("0001.txt", b"a dog\n\nan old dog \n"),
        ("0001.json", b'{"caption": "not read"}'),
        ("0002.json", json.dumps({"key": "2", "caption": "LAION's", "url": "x", "split": "val"}).encode()),
        ("0002.webp", picture(2, "WEBP")),
        ("._0002.webp", b"macOS"),
        ("0002.cls", b"7"),
    ]
)
SECOND = packed(
    [
        ("a/b.left.PNG", picture(3, "PNG")),
        ("a/b.json", json.dumps({"text": ["one", "two"]}).encode()),
        ("a/c.jpeg", picture(4)),
        ("a/c.TXT", "ein Hund – im Schnee".encode()),
    ]
)
CAPTIONS = {
    "shard-00/0001": ("a dog", "an old dog"),
    "shard-00/0002": ("LAION's",),
    "shard-01/a/b.left": ("one", "two"),
    "shard-01/a/c": ("ein Hund – im Schnee",),
}


def built(tmp_path, images, max_bad=0, captions=None, name="made"):
    settings = Folder(images=str(images), captions=captions, val=0.3, test=0.3, seed=0)
    build_folder(tmp_path / name, settings, Download(mirror=None, offline=False, keep_archives=True, max_bad=max_bad))
    return read_dataset(tmp_path / name)


def test_captions_and_photographs_come_from_tars_of_this_machine_a_server_and_memory(tmp_path, server):
    tars = {"shard-00.tar": FIRST.replace(b', "split": "val"', b"                "), "shard-01.tar": SECOND}
    for name, content in tars.items():
        (tmp_path / name).write_bytes(content)
        server.files[name] = content
        fsspec.filesystem("memory").pipe(f"/tars/{name}", content)
    patterns = [tmp_path / "shard-*.tar", tmp_path / "shard-{00..01}.tar", f"file://{tmp_path}/shard-0{{0,1}}.tar"]
    patterns += [f"{server.url}/files/shard-{{00..01}}.tar", "memory://tars/shard-*.tar"]
    found = [built(tmp_path, pattern, name=str(number)) for number, pattern in enumerate(patterns)]
    for dataset in found:
        assert {record.id: record.captions for record in dataset.records} == CAPTIONS
        assert dataset.skipped == ()
        assert (dataset.records, dataset.sources) == (found[0].records, found[0].sources)
    records = {record.id: record for record in found[0].records}
    assert records["shard-01/a/b.left"].path == "images/shard-01/a/b.left.PNG"
    assert (found[0].folder / "images/shard-01/a/b.left.PNG").read_bytes() == picture(3, "PNG")
    assert records["shard-01/a/b.left"].width == 13


def test_splits_in_json_are_taken_and_a_packed_tar_is_the_same(tmp_path):
    splits = ["train", "val", "test"]
    members = [(f"{n}.jpg", picture(n)) for n in range(3)]
    members += [(f"{n}.json", json.dumps({"caption": f"no {n}", "split": splits[n]}).encode()) for n in range(3)]
    (tmp_path / "x.tar").write_bytes(packed(members))
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(packed(members)))
    for name in ("x.tar", "y.tar.gz"):
        dataset = built(tmp_path, tmp_path / name, name=name[0])
        assert [(record.captions[0], record.split) for record in dataset.records] == [
            ("no 0", "train"),
            ("no 1", "val"),
            ("no 2", "test"),
        ]


def test_damaged_members_count_as_bad_items_and_are_named(tmp_path):
    members = [(f"{n}.jpg", picture(n)) for n in range(10)] + [(f"{n}.txt", b"a picture") for n in range(9)]
    members += [("b.jpg", b"no image"), ("b.txt", b"one"), ("c.jpg", picture(15)), ("c.json", b"{"), ("d.txt", b"x")]
    members += [("e.jpg", picture(16)), ("e.txt", b"\xff\xfe"), ("f.jpg", picture(17)), ("f.json", b'{"url": "x"}')]
    (tmp_path / "x.tar").write_bytes(packed(members))
    with raises_naming("6 bad items", "download.max_bad 5"):
        built(tmp_path, tmp_path / "x.tar", max_bad=5)
    dataset = built(tmp_path, tmp_path / "x.tar", max_bad=6)
    assert len(dataset.records) == 9
    assert {(item.item, item.reason) for item in dataset.skipped} == {
        ("x/9.jpg", "no caption in the tar"),
        ("x/b.jpg", "no image; its 1 captions go with it"),
        ("x/c.json", "not JSON"),
        ("x/d.txt", "no photograph of this key"),
        ("x/e.txt", "not UTF-8 text"),
        ("x/f.json", "no caption: expected a key such as caption or text"),
    }


def _info(name, kind=None, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind or info.type, target
    return info


LONG = [("1.jpg", picture(1)), ("2.jpg", bytes(40_000))]
HOSTILE = {
    "link": (packed([(_info("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), b"")]), ("'a.jpg'", "link")),
    "hard link": (packed([(_info("a.txt", tarfile.LNKTYPE, "b"), b"")]), ("'a.txt'", "link")),
    "pipe": (packed([(_info("a.jpg", tarfile.FIFOTYPE), b"")]), ("'a.jpg'", "plain")),
    "out": (packed([("../a.jpg", b"x")]), ("'../a.jpg'", "leads out")),
    "absolute": (packed([("/tmp/a.jpg", b"x")]), ("'/tmp/a.jpg'", "leads out")),
    "twice": (packed([("a.jpg", b"x"), ("./a.jpg", b"y")]), ("'./a.jpg'", "twice")),
    "file and folder": (packed([("a.jpg", b"x"), ("a.jpg/b.jpg", b"y")]), ("'a.jpg/b.jpg'", "folder")),
    "cut in a member": (packed(LONG)[:20_000], ("cut off", "within")),
    "cut between members": (packed(LONG)[: 512 + 1024], ("cut off", "'1.jpg'")),
    "cut in a header": (packed(LONG)[: 512 + 1024 + 100], ("after '1.jpg'",)),
    "damaged header": (packed(LONG).replace(b"2.jpg", b"3.jpg"), ("header", "'1.jpg'")),
    "two in one": (packed(LONG) + packed(LONG), ("goes on",)),
    "empty": (b"", ("no tar", "beginning")),
    "no tar": (b"hello" * 1000, ("no tar", "beginning")),
    "cut gzip": (gzip.compress(packed(LONG))[:-9], ("damaged", "cut off")),
    "bomb": (gzip.compress(packed([("a.bin", bytes(2**26))])), ("200 times",)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_honest_tar_has_is_refused_and_named(tmp_path, kind):
    content, parts = HOSTILE[kind]
    (tmp_path / "x.tar").write_bytes(content)
    with raises_naming(tmp_path / "x.tar", *parts):
        unpack_samples(str(tmp_path / "x.tar"), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.name == "a.jpg" and tmp_path / "out" not in path.parents]


def test_too_large_members_are_left_out(tmp_path):
    (tmp_path / "x.tar").write_bytes(packed([("a.txt", bytes(2**20 + 1)), ("b.jpg", picture(1))]))
    samples = unpack_samples(str(tmp_path / "x.tar"), tmp_path / "out")
    assert (samples.images, samples.texts) == (["b.jpg"], {})
    assert samples.skipped[0].item == "a.txt"


def test_all_of_a_tar_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_TEXTS", 1500)
    (tmp_path / "x.tar").write_bytes(packed([(f"{number}.txt", bytes(1000)) for number in range(2)]))
    with raises_naming("x.tar", "'1.txt'", "2,000"):
        unpack_samples(str(tmp_path / "x.tar"), tmp_path / "out")


def test_a_transfer_that_is_cut_off_is_named(tmp_path, server):
    server.files["x.tar"] = packed([("a.jpg", bytes(400_000))])
    with raises_naming("x.tar"):
        unpack_samples(f"{server.url}/cut/x.tar", tmp_path)
    with raises_naming("x.tar", "no such file"):
        unpack_samples(f"{server.url}/missing/x.tar", tmp_path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pipe:cat x.tar", ("commands",)),
        ("tar://a.jpg::file:///x.tar", ("within", "(::)")),
        ("reference://x.tar", ("reference:// ", ", ".join(PROTOCOLS))),
        ("nowhere-*.tar", ("no such file", "x-{000..012}.tar")),
        ("memory://nowhere/*.tar", ("no such file",)),
        ("x-{5..3}.tar", ("{5..3} ", "-1 tars", "1 to 100,000")),
        ("x-{0..99999999}.tar", ("{0..99999999} ", "100,000,000 tars", "1 to 100,000")),
        ("x-{0}.tar", ("{0} ", "{000..012}", "{a,b}")),
        ("hdfs://host/x.tar", ()),
    ],
)
def test_what_names_no_tar_is_one_line(text, parts):
    with raises_naming(text, *parts) as error:
        for address in find_tars(text):
            unpack_samples(address, None)
    assert "\n" not in str(error.value)


def test_a_protocol_without_its_package_names_the_package():
    pytest.importorskip("fsspec")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with raises_naming("s3://bucket/x-*.tar", "package", "s3fs"):
            find_tars("s3://bucket/x-*.tar")
    else:
        pytest.skip("s3fs is installed")


def test_patterns_and_names():
    assert list(expand_braces("a-{08..11}-{x,y}.tar"))[:3] == ["a-08-x.tar", "a-08-y.tar", "a-09-x.tar"]
    assert len(list(expand_braces("a-{000000..000012}.tar"))) == 13
    assert folder_names(["s3://b/a/x.tar?v=1", "/y/x.tar.gz", "z w.tgz"]) == ["00000-x", "00001-x", "z_w"]


def test_captions_in_a_file_besides_tars_are_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(FIRST)
    with raises_naming("folder.captions", "captions.csv", "null"):
        built(tmp_path, tmp_path / "x.tar", captions="captions.csv")


def test_the_split_of_a_json_counts_beside_a_text(tmp_path):
    splits = ["train", "val", "test"]
    members = [(f"{n}.jpg", picture(n)) for n in range(3)] + [(f"{n}.txt", b"a picture") for n in range(3)]
    members += [(f"{n}.json", json.dumps({"Split": splits[n], "text": "", "title": 3}).encode()) for n in range(3)]
    members += [("3.jpg", picture(3)), ("3.txt", b"one"), ("3.json", b"[1]")]
    members += [("4.jpg", picture(4)), ("4.txt", b"one"), ("4.json", b'{"split": ')]
    members += [("5.jpg", picture(5)), ("5.txt", b"one"), ("5.json", b'{"split": "no"}')]
    members += [("6.jpg", picture(6)), ("6.txt", b"one"), ("6.json", b'{"split": "val", "SPLIT": "test"}')]
    (tmp_path / "x.tar").write_bytes(packed(members))
    dataset = built(tmp_path, tmp_path / "x.tar", max_bad=4)
    assert [(record.captions, record.split) for record in dataset.records] == [
        (("a picture",), split) for split in splits
    ]
    reasons = {item.item: item.reason for item in dataset.skipped}
    assert reasons.keys() == {"x/3.jpg", "x/4.json", "x/5.txt", "x/6.json"}
    assert "no split" in reasons["x/3.jpg"] and "'no'" in reasons["x/5.txt"] and "twice" in reasons["x/6.json"]
    assert reasons["x/4.json"] == "not JSON"


def test_a_caption_ends_where_a_line_does(tmp_path):
    text = "a sign: one\u2028two\x85three\x0cfour\nnext\r\nlast"
    members = [(f"{n}.jpg", picture(n)) for n in range(3)] + [(f"{n}.txt", text.encode()) for n in range(3)]
    (tmp_path / "x.tar").write_bytes(packed(members))
    for record in built(tmp_path, tmp_path / "x.tar").records:
        assert record.captions == ("a sign: one two three four", "next", "last")


def test_names_in_a_tar_are_taken_as_they_are(tmp_path):
    """Two that differ in how an accent is encoded are two photographs, as are others that a list would take for one."""
    names = ["caf\u00e9", "cafe\u0301", " blank", "blank"]
    members = [(f"{name}.jpg", picture(n)) for n, name in enumerate(names)]
    members += [(f"{name}.txt", f"number {n}".encode()) for n, name in enumerate(names)]
    (tmp_path / "x.tar").write_bytes(packed(members))
    dataset = built(tmp_path, tmp_path / "x.tar")
    found = {record.id: (record.captions, record.width) for record in dataset.records}
    assert found == {f"x/{name}": ((f"number {n}",), 10 + n) for n, name in enumerate(names)}
