"""Archives from a local server and from folders, good and bad; zip archives that must not be trusted."""

import hashlib
import http.server
import io
import socket
import stat
import struct
import threading
import zipfile
from pathlib import Path

import pytest

from crossmodal.datasets.download import Archive, limit_bad, obtain, unpack
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError


def zipped(members):
    """Bytes of a zip archive; ``members`` maps name to content, stored in that order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zipped({"a.txt": "good" * 1000, "b.txt": bytes(range(256)) * 800})
SHA256 = hashlib.sha256(GOOD).hexdigest()
MD5 = hashlib.md5(GOOD).hexdigest()
OTHER = zipped({"a.txt": "a re-pack"})
QUICK = (0.0, 0.0)


class Handler(http.server.BaseHTTPRequestHandler):
    """What is served depends on the first folder of the path."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(self.path)
        first = self.server.requests.count(self.path) == 1
        if kind == "missing" or (kind == "once500" and first) or kind == "always503":
            self.send_error({"missing": 404, "once500": 500, "always503": 503}[kind])
            return
        body = {"corrupt": GOOD[:-30] + bytes(30), "other": OTHER, "page": b"<html>log in first</html>"}.get(kind, GOOD)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = kind == "cut" or (kind == "once_cut" and first)
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


def archive_at(*urls, hashes=(f"sha256:{SHA256}",)):
    return Archive("good.zip", urls, hashes)


def files(folder):
    """Names of the files below a folder, without the locks."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


class TestObtainFromAddresses:
    @pytest.mark.parametrize("hash_", [f"sha256:{SHA256}", f"md5:{MD5}"], ids=["sha256", "md5"])
    def test_good_file_is_cached_and_used_again(self, server, tmp_path, hash_):
        archive = archive_at(f"{server.url}/ok/good.zip", hashes=(hash_,))
        for _ in range(2):
            found = obtain(archive, tmp_path / "cache", None, delays=QUICK)
            assert found.path == tmp_path / "cache/good.zip"
            assert found.path.read_bytes() == GOOD
            assert (found.sha256, found.known) == (SHA256, True)
        assert len(server.requests) == 1
        assert files(tmp_path) == ["cache/good.zip"]

    def test_damaged_cache_is_downloaded_again(self, server, tmp_path):
        (tmp_path / "good.zip").write_bytes(GOOD[:100])
        found = obtain(archive_at(f"{server.url}/ok/good.zip"), tmp_path, None, delays=QUICK)
        assert found.path.read_bytes() == GOOD

    @pytest.mark.parametrize("kind", ["once500", "once_cut"])
    def test_passing_failure_is_tried_again(self, server, tmp_path, kind):
        found = obtain(archive_at(f"{server.url}/{kind}/good.zip"), tmp_path, None, delays=QUICK)
        assert found.path.read_bytes() == GOOD
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("kind", "reason", "requests"),
        [
            ("missing", "HTTP 404 Not Found", 1),
            ("always503", "HTTP 503 Service Unavailable", 3),
            ("cut", "connection was cut before the file was complete", 3),
            ("corrupt", f"wrong checksum: found sha256:.*, expected sha256:{SHA256}", 1),
            ("page", "wrong checksum", 1),
        ],
        ids=["missing", "always503", "cut", "corrupt", "page"],
    )
    def test_failure_is_explained(self, server, tmp_path, kind, reason, requests):
        url = f"{server.url}/{kind}/good.zip"
        with pytest.raises(UserError, match=reason) as caught:
            obtain(archive_at(url), tmp_path, None, delays=QUICK)
        message = str(caught.value)
        assert message.startswith("good.zip: not obtained") and url in message
        assert "download.mirror" in message
        assert len(message.splitlines()) <= 2
        assert len(server.requests) == requests
        assert files(tmp_path) == []

    def test_unreachable_host(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(UserError, match="host not reachable"):
            obtain(archive_at(f"http://127.0.0.1:{port}/good.zip"), tmp_path, None, delays=QUICK)

    def test_next_address_is_tried_and_all_are_listed(self, server, tmp_path):
        bad = (f"{server.url}/missing/good.zip", f"{server.url}/corrupt/good.zip")
        assert obtain(archive_at(*bad, f"{server.url}/ok/good.zip"), tmp_path / "a", None, delays=QUICK).known
        with pytest.raises(UserError) as caught:
            obtain(archive_at(*bad), tmp_path / "b", None, delays=QUICK)
        assert all(url in str(caught.value) for url in bad)

    def test_without_known_checksum_a_complete_zip_is_taken(self, server, tmp_path):
        found = obtain(archive_at(f"{server.url}/ok/good.zip", hashes=()), tmp_path, None, delays=QUICK)
        assert (found.sha256, found.known) == (SHA256, None)
        with pytest.raises(UserError, match="not a complete zip archive"):
            obtain(archive_at(f"{server.url}/page/good.zip", hashes=()), tmp_path / "b", None, delays=QUICK)

    def test_cache_that_cannot_be_written(self, server, tmp_path):
        (tmp_path / "cache").write_text("a file where the folder should be")
        with pytest.raises(UserError, match="cannot be written"):
            obtain(archive_at(f"{server.url}/ok/good.zip"), tmp_path / "cache", None, delays=QUICK)


class TestObtainFromMirror:
    @pytest.mark.parametrize("as_url", [False, True])
    def test_folder_is_used_in_place(self, tmp_path, as_url):
        (tmp_path / "my mirror").mkdir()
        path = tmp_path / "my mirror/good.zip"
        path.write_bytes(GOOD)
        mirror = path.parent.as_uri() if as_url else str(path.parent)
        found = obtain(archive_at("http://127.0.0.1:9/x"), tmp_path / "cache", mirror, delays=QUICK)
        assert (found.path, found.sha256, found.known) == (path, SHA256, True)
        assert not (tmp_path / "cache").exists()

    def test_relative_folder_is_below_the_project_root(self, tmp_path, monkeypatch):
        (tmp_path / "mirror").mkdir()
        (tmp_path / "mirror/good.zip").write_bytes(GOOD)
        (tmp_path / "root").mkdir()
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / "root"))
        assert obtain(archive_at(), tmp_path / "cache", "../mirror").known

    def test_other_checksum_is_taken_with_a_note(self, tmp_path, caplog):
        (tmp_path / "good.zip").write_bytes(OTHER)
        found = obtain(archive_at(), tmp_path / "cache", str(tmp_path))
        assert (found.sha256, found.known) == (hashlib.sha256(OTHER).hexdigest(), False)
        assert found.sha256 in caplog.text and SHA256 in caplog.text

    def test_truncated_file_is_not_taken(self, tmp_path):
        (tmp_path / "good.zip").write_bytes(GOOD[: len(GOOD) // 2])
        with pytest.raises(UserError, match=r"good\.zip: not a complete zip archive"):
            obtain(archive_at(), tmp_path / "cache", str(tmp_path))

    def test_missing_in_mirror_falls_back_to_the_public_address(self, server, tmp_path, caplog):
        (tmp_path / "empty").mkdir()
        archive = archive_at(f"{server.url}/ok/good.zip")
        found = obtain(archive, tmp_path / "cache", str(tmp_path / "empty"), delays=QUICK)
        assert found.path == tmp_path / "cache/good.zip"
        assert "no such file; trying the public addresses" in caplog.text

    def test_missing_folder_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"nowhere/good\.zip: no such folder"):
            obtain(archive_at(), tmp_path, str(tmp_path / "nowhere"))

    def test_address_is_cached_apart_from_the_public_file(self, server, tmp_path):
        archive = archive_at(f"{server.url}/ok/good.zip")
        for _ in range(2):
            found = obtain(archive, tmp_path, f"{server.url}/other/", delays=QUICK)
            assert (found.path.read_bytes(), found.known) == (OTHER, False)
        assert server.requests == ["/other/good.zip"]
        assert obtain(archive, tmp_path, None, delays=QUICK).path.read_bytes() == GOOD


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


def test_limit_bad():
    skipped = [Skipped(f"{number}.jpg", "truncated") for number in range(5)]
    limit_bad(skipped, 5)
    with pytest.raises(UserError) as caught:
        limit_bad(skipped, 4)
    assert str(caught.value) == (
        "5 bad items, more than download.max_bad 4 in params.yaml allows: "
        "0.jpg: truncated; 1.jpg: truncated; 2.jpg: truncated; and 2 more"
    )
