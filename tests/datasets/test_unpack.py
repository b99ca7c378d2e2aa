"""Archives that must not be trusted, and damaged ones."""

import errno
import gzip
import io
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from served import GOOD, zipped

from crossmodal.datasets.archives import unpack as unpack_module
from crossmodal.datasets.archives.unpack import PART, plain_name, unpack
from crossmodal.errors import UserError
from tests.assertions import raises_naming


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def everything(member):
    return member


class TestUnpack:
    def write(self, tmp_path, content) -> Path:
        path = tmp_path / "test.zip"
        path.write_bytes(content)
        return path

    def test_only_wanted_members_are_written(self, tmp_path):
        path = self.write(tmp_path, zipped({"in/a.jpg": "A", "in/b.txt": "B", "../evil": "E"}))
        targets = {"in/a.jpg": "x/y.jpg"}
        assert unpack(path, tmp_path / "out", targets.get) == []
        assert files(tmp_path / "out") == ["x/y.jpg"]
        assert (tmp_path / "out/x/y.jpg").read_text() == "A"

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/crossmodal-evil", "C:/evil", "a\\..\\evil"])
    @pytest.mark.parametrize("renamed", [False, True])
    def test_member_that_leads_out(self, tmp_path, name, renamed):
        path = self.write(tmp_path, zipped({"fine": "F", name: "E"}))
        (tmp_path / "out").mkdir()
        with raises_naming("test.zip, member", "leads out"):
            unpack(path, tmp_path / "out", {"fine": "fine", name: "harmless" if renamed else name}.get)
        assert files(tmp_path) == ["test.zip"]

    @pytest.mark.parametrize("target", ["../evil", "/tmp/crossmodal-evil", ""])
    def test_target_that_leads_out(self, tmp_path, target):
        path = self.write(tmp_path, zipped({"fine": "F"}))
        with raises_naming("leads out"):
            unpack(path, tmp_path / "out", lambda member: target)

    def test_link(self, tmp_path):
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        path = tmp_path / "test.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(link, "/etc/passwd")
        with raises_naming("'link'", "is a link"):
            unpack(path, tmp_path / "out", everything)
        assert files(tmp_path) == ["test.zip"]

    def test_encrypted(self, tmp_path):
        content = bytearray(zipped({"a": "A"}))
        content[content.index(b"PK\1\2") + 8] |= 1
        with raises_naming("test.zip", "encrypted"):
            unpack(self.write(tmp_path, content), tmp_path / "out", everything)

    def test_two_members_for_one_file(self, tmp_path):
        path = self.write(tmp_path, zipped({"a/x": "1", "b/x": "2"}))
        with raises_naming("'b/x'", "twice"):
            unpack(path, tmp_path / "out", lambda member: "x")

    def test_existing_file_stays(self, tmp_path):
        path = self.write(tmp_path, zipped({"a": "new"}))
        (tmp_path / "a").write_text("old")
        with raises_naming("test.zip", "/a ", "already"):
            unpack(path, tmp_path, everything)
        assert (tmp_path / "a").read_text() == "old"

    def test_zip_bomb(self, tmp_path):
        path = self.write(tmp_path, zipped({"bomb": bytes(20_000_000)}))
        with raises_naming("20,000,000", "200"):
            unpack(path, tmp_path / "out", everything)

    def test_total_size(self, tmp_path):
        path = self.write(tmp_path, zipped({"a": "1" * 600, "b": "2" * 600}))
        with raises_naming("1,200", "1,000"):
            unpack(path, tmp_path / "out", everything, max_bytes=1000)
        assert files(tmp_path) == ["test.zip"]

    @pytest.mark.parametrize("content", [GOOD[: len(GOOD) // 2], b"", b"<html>"])
    def test_truncated_archive(self, tmp_path, content):
        with raises_naming("test.zip", "readable"):
            unpack(self.write(tmp_path, content), tmp_path / "out", everything, tolerant=True)

    def test_missing_archive(self, tmp_path):
        with raises_naming("absent.zip", "No such file"):
            unpack(tmp_path / "absent.zip", tmp_path / "out", everything)

    def test_damaged_member(self, tmp_path):
        content = bytearray(zipped({"first": "1" * 50, "second": bytes(range(256)), "third": "3" * 50}))
        start = content.index(b"second") + len("second")
        content[start + 5 : start + 40] = bytes(35)
        path = self.write(tmp_path, content)
        with raises_naming("test.zip", "'second'", "damaged"):
            unpack(path, tmp_path / "strict", everything)
        (skipped,) = unpack(path, tmp_path / "tolerant", everything, tolerant=True)
        assert skipped.item == "second" and skipped.reason.startswith("damaged in test.zip")
        assert files(tmp_path / "tolerant") == ["first", "third"]

    def test_wrong_crc(self, tmp_path):
        content = bytearray(zipped({"first": "1" * 50}))
        entry = content.index(b"PK\1\2")
        struct.pack_into("<I", content, entry + 16, 12345)
        (skipped,) = unpack(self.write(tmp_path, content), tmp_path / "out", everything, tolerant=True)
        assert "CRC" in skipped.reason
        assert files(tmp_path / "out") == []

    def test_too_big_for_the_disk(self, tmp_path, monkeypatch):
        path = self.write(tmp_path, zipped({"a": bytes(range(250)) * 20}))
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 4999}))
        with raises_naming("test.zip", "5.0 kB"):
            unpack(path, tmp_path / "out", everything)
        assert files(tmp_path) == ["test.zip"]


def tar(path, members, mode="w:gz"):
    """A tar archive; ``members`` maps name to content, or to a type and a link's target."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


class TestUnpackTar:
    @pytest.mark.parametrize(("name", "mode"), [("test.tar.gz", "w:gz"), ("test.tgz", "w:gz"), ("test.tar", "w")])
    def test_only_wanted_members_are_written(self, tmp_path, name, mode):
        members = {"in": (tarfile.DIRTYPE, ""), "in/a.jpg": b"A", "../evil": b"E", "link": (tarfile.SYMTYPE, "/etc")}
        path = tar(tmp_path / name, members, mode)
        assert unpack(path, tmp_path / "out", {"in/a.jpg": "x/y.jpg"}.get) == []
        assert files(tmp_path / "out") == ["x/y.jpg"]
        assert (tmp_path / "out/x/y.jpg").read_bytes() == b"A"

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/crossmodal-evil", "a\\..\\evil"])
    @pytest.mark.parametrize("renamed", [False, True])
    def test_member_that_leads_out(self, tmp_path, name, renamed):
        path = tar(tmp_path / "test.tar.gz", {name: b"E"})
        with raises_naming("test.tar.gz, member", "leads out"):
            unpack(path, tmp_path / "out", {name: "harmless" if renamed else name}.get)
        assert files(tmp_path) == ["test.tar.gz"]

    @pytest.mark.parametrize(
        ("kind", "word"),
        [
            (tarfile.SYMTYPE, "link"),
            (tarfile.LNKTYPE, "link"),
            (tarfile.FIFOTYPE, "plain"),
            (tarfile.CHRTYPE, "plain"),
        ],
    )
    def test_member_that_is_no_file(self, tmp_path, kind, word):
        path = tar(tmp_path / "test.tar.gz", {"a": b"A", "b": (kind, "../../etc/passwd")})
        with raises_naming(path, "'b'", word):
            unpack(path, tmp_path / "out", everything)
        assert files(tmp_path) == ["test.tar.gz"]

    def test_file_through_a_linked_folder(self, tmp_path):
        """The link is not written when it is not wanted, so that nothing can go through it."""
        (tmp_path / "elsewhere").mkdir()
        path = tar(tmp_path / "test.tar.gz", {"d": (tarfile.SYMTYPE, str(tmp_path / "elsewhere")), "d/a": b"A"})
        unpack(path, tmp_path / "out", {"d/a": "d/a"}.get)
        assert files(tmp_path) == ["out/d/a", "test.tar.gz"]

    def test_two_members_for_one_file(self, tmp_path):
        path = tar(tmp_path / "test.tar.gz", {"a/x": b"1", "b/x": b"2"})
        with raises_naming("'b/x'", "twice"):
            unpack(path, tmp_path / "out", lambda member: "x")

    @pytest.mark.parametrize("wanted", [everything, lambda member: None])
    def test_bomb(self, tmp_path, wanted):
        path = tar(tmp_path / "test.tar.gz", {"bomb": bytes(20_000_000)})
        with raises_naming(path, f"{200 * path.stat().st_size:,} bytes"):
            unpack(path, tmp_path / "out", wanted)
        assert files(tmp_path) == ["test.tar.gz"]

    def test_total_size(self, tmp_path):
        path = tar(tmp_path / "test.tar.gz", {"a": b"1" * 600, "b": b"2" * 600})
        with raises_naming("1,000"):
            unpack(path, tmp_path / "out", everything, max_bytes=1000)

    @pytest.mark.parametrize("damage", ["cut", "end", "checksum", "text"])
    def test_damaged_archive(self, tmp_path, damage):
        path = tar(tmp_path / "test.tar.gz", {"a": GOOD})
        content = path.read_bytes()
        spoilt = {
            "cut": content[: len(content) // 2],
            "end": content[:-12],
            "checksum": content[:-8] + bytes(4) + content[-4:],
            "text": gzip.compress(b"<html>" * 200),
        }
        path.write_bytes(spoilt[damage])
        with raises_naming("test.tar.gz", "readable"):
            unpack(path, tmp_path / "out", everything)
        assert files(tmp_path / "out") == []


MEMBERS = {"in/a": b"A" * 700, "in/b": b"B" * 800, "in/c": b"C" * 900}


@pytest.fixture(params=["test.zip", "test.tar", "test.tar.gz"])
def archive(request, tmp_path):
    """The same three members in each form."""
    path = tmp_path / request.param
    if path.suffix == ".zip":
        path.write_bytes(zipped(MEMBERS))
        return path
    return tar(path, {"in": (tarfile.DIRTYPE, ""), **MEMBERS}, "w" if path.suffix == ".tar" else "w:gz")


class TestGoingOn:
    """After a kill: what is whole has its name, what is not has another."""

    def spoil(self, tmp_path, **contents):
        for name, content in contents.items():
            (tmp_path / "out/in").mkdir(parents=True, exist_ok=True)
            (tmp_path / "out/in" / name).write_bytes(content)

    def content(self, tmp_path):
        return {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}

    def test_whole_files_are_kept(self, archive, tmp_path):
        self.spoil(tmp_path, a=MEMBERS["in/a"])
        (tmp_path / "out" / PART).write_bytes(b"half a file")
        before = (tmp_path / "out/in/a").stat()
        assert unpack(archive, tmp_path / "out", everything) == []
        assert self.content(tmp_path) == MEMBERS
        after = (tmp_path / "out/in/a").stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

    def test_a_second_time_writes_nothing(self, archive, tmp_path, monkeypatch):
        unpack(archive, tmp_path / "out", everything)
        monkeypatch.setattr(unpack_module, "_write", None)
        assert unpack(archive, tmp_path / "out", everything) == []
        assert self.content(tmp_path) == MEMBERS

    @pytest.mark.parametrize("other", [b"", b"A" * 699, b"A" * 699 + b"!"])
    def test_other_content_is_not_kept_nor_overwritten(self, archive, tmp_path, other):
        self.spoil(tmp_path, a=other)
        with raises_naming("out/in/a", "already"):
            unpack(archive, tmp_path / "out", everything)
        assert self.content(tmp_path) == {"in/a": other}

    @pytest.mark.parametrize("killed", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
    def test_cut_off_within_a_file(self, archive, tmp_path, monkeypatch, killed):
        copy = shutil.copyfileobj

        def cut(source, sink, size):
            content = source.read()
            if content != MEMBERS["in/b"]:
                return copy(io.BytesIO(content), sink, size)
            sink.write(content[:50])
            raise killed

        with monkeypatch.context() as patch:
            patch.setattr(unpack_module.shutil, "copyfileobj", cut)
            with pytest.raises((KeyboardInterrupt, UserError)):
                unpack(archive, tmp_path / "out", everything)
        assert files(tmp_path / "out") == ["in/a"]
        unpack(archive, tmp_path / "out", everything)
        assert self.content(tmp_path) == MEMBERS

    def test_space_for_what_is_missing(self, archive, tmp_path, monkeypatch):
        self.spoil(tmp_path, a=MEMBERS["in/a"])
        free = [1699]
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": free[0]}))
        with raises_naming(tmp_path / "out", archive.name, "needs 1.7 kB", "only 1.7 kB"):
            unpack(archive, tmp_path / "out", everything)
        assert files(tmp_path / "out") == ["in/a"]
        free[0] = 1700
        unpack(archive, tmp_path / "out", everything)
        assert self.content(tmp_path) == MEMBERS

    def test_name_of_unfinished_work(self, archive, tmp_path):
        with raises_naming("'in/b'", "unfinished"):
            unpack(archive, tmp_path / "out", lambda member: PART if member == "in/b" else member)

    def test_one_file_on_a_disk_that_ignores_case(self, archive, tmp_path, monkeypatch):
        """Such a disk says that b is there when a is."""
        exists, places = Path.exists, {"b": "a"}
        monkeypatch.setattr(Path, "exists", lambda path: exists(path.with_name(places.get(path.name, path.name))))
        with raises_naming("out/in/b", "File exists"):
            unpack(archive, tmp_path / "out", everything)
        assert self.content(tmp_path) == {"in/a": MEMBERS["in/a"]}


@pytest.mark.parametrize(
    ("member", "name"),
    [("a.jpg", "a.jpg"), ("x/y/a.jpg", "a.jpg"), ("__MACOSX/a.jpg", None), ("x/b.jpg", None), ("a.jpg/", "a.jpg")],
)
def test_plain_name(member, name):
    assert plain_name(member, {"a.jpg"}) == name


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_damaged_member_of_every_method(tmp_path, method, tolerant):
    content = bytes(range(256)) * 40
    with zipfile.ZipFile(tmp_path / "good.zip", "w", method) as archive:
        archive.writestr("bad.bin", content)
        archive.writestr("good.bin", content[:100])
    whole = (tmp_path / "good.zip").read_bytes()
    unpack(tmp_path / "good.zip", tmp_path / "whole", everything)
    assert (tmp_path / "whole/bad.bin").read_bytes() == content
    for at in range(52, 100, 4):  # of the packed data, behind what LZMA says of itself
        (tmp_path / "bad.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        out = tmp_path / f"out{at}"
        if tolerant:
            assert [item.item for item in unpack(tmp_path / "bad.zip", out, everything, tolerant=True)] == ["bad.bin"]
            assert (out / "good.bin").read_bytes() == content[:100]
            assert files(out) == ["good.bin"]
        else:
            with raises_naming("bad.zip", "'bad.bin'", "damaged"):
                unpack(tmp_path / "bad.zip", out, everything)
            assert not (out / "bad.bin").exists()


def test_zeros_after_the_end_of_a_tar(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack_module, "_PADDING", 1 << 16)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    for name, zeros in (("padded", 1 << 15), ("bomb", 1 << 24)):
        (tmp_path / f"{name}.tar.gz").write_bytes(gzip.compress(buffer.getvalue() + bytes(zeros)))
    unpack(tmp_path / "padded.tar.gz", tmp_path / "out", everything)
    assert (tmp_path / "out/a.jpg").read_bytes() == b"abc"
    with raises_naming("bomb.tar.gz", "goes on"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "other", everything)
    assert not files(tmp_path / "other")
