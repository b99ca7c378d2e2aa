"""Archives that must not be trusted, and damaged ones."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest
from served import GOOD, zipped

from crossmodal.datasets.unpack import unpack
from crossmodal.errors import UserError


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
        with pytest.raises(UserError, match=r"test\.zip, member .*: leads out of the folder"):
            unpack(path, tmp_path / "out", {"fine": "fine", name: "harmless" if renamed else name}.get)
        assert files(tmp_path) == ["test.zip"]

    @pytest.mark.parametrize("target", ["../evil", "/tmp/crossmodal-evil", ""])
    def test_target_that_leads_out(self, tmp_path, target):
        path = self.write(tmp_path, zipped({"fine": "F"}))
        with pytest.raises(UserError, match="leads out of the folder"):
            unpack(path, tmp_path / "out", lambda member: target)

    def test_link(self, tmp_path):
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        path = tmp_path / "test.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(link, "/etc/passwd")
        with pytest.raises(UserError, match="'link': is a link"):
            unpack(path, tmp_path / "out", everything)
        assert files(tmp_path) == ["test.zip"]

    def test_encrypted(self, tmp_path):
        content = bytearray(zipped({"a": "A"}))
        content[content.index(b"PK\1\2") + 8] |= 1
        with pytest.raises(UserError, match="is encrypted"):
            unpack(self.write(tmp_path, content), tmp_path / "out", everything)

    def test_two_members_for_one_file(self, tmp_path):
        path = self.write(tmp_path, zipped({"a/x": "1", "b/x": "2"}))
        with pytest.raises(UserError, match="'b/x': comes twice"):
            unpack(path, tmp_path / "out", lambda member: "x")

    def test_existing_file_stays(self, tmp_path):
        path = self.write(tmp_path, zipped({"a": "new"}))
        (tmp_path / "a").write_text("old")
        with pytest.raises(UserError, match="File exists"):
            unpack(path, tmp_path, everything)
        assert (tmp_path / "a").read_text() == "old"

    def test_zip_bomb(self, tmp_path):
        path = self.write(tmp_path, zipped({"bomb": bytes(20_000_000)}))
        with pytest.raises(UserError, match="to 20,000,000 bytes, more than 200 fold"):
            unpack(path, tmp_path / "out", everything)

    def test_total_size(self, tmp_path):
        path = self.write(tmp_path, zipped({"a": "1" * 600, "b": "2" * 600}))
        with pytest.raises(UserError, match="would unpack to 1,200 bytes, expected at most 1,000"):
            unpack(path, tmp_path / "out", everything, max_bytes=1000)
        assert files(tmp_path) == ["test.zip"]

    @pytest.mark.parametrize("content", [GOOD[: len(GOOD) // 2], b"", b"<html>"])
    def test_truncated_archive(self, tmp_path, content):
        with pytest.raises(UserError, match=r"test\.zip: not a readable zip archive"):
            unpack(self.write(tmp_path, content), tmp_path / "out", everything, tolerant=True)

    def test_missing_archive(self, tmp_path):
        with pytest.raises(UserError, match=r"absent\.zip.*No such file"):
            unpack(tmp_path / "absent.zip", tmp_path / "out", everything)

    def test_damaged_member(self, tmp_path):
        content = bytearray(zipped({"first": "1" * 50, "second": bytes(range(256)), "third": "3" * 50}))
        start = content.index(b"second") + len("second")
        content[start + 5 : start + 40] = bytes(35)
        path = self.write(tmp_path, content)
        with pytest.raises(UserError, match=r"test\.zip, member 'second': damaged"):
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
