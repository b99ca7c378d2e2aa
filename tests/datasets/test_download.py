"""Archives from a local server and from folders, good and bad."""

import hashlib
import socket

import pytest
from served import GOOD, MD5, OTHER, SHA256

from crossmodal.datasets.download import Archive, limit_bad, obtain
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError

QUICK = (0.0, 0.0)


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
        part, note = f"good.zip.part-{hashlib.sha256(url.encode()).hexdigest()[:8]}", ".json"
        assert files(tmp_path) == ([part, part + note] if kind == "cut" else [])

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


def test_limit_bad():
    skipped = [Skipped(f"{number}.jpg", "truncated") for number in range(5)]
    limit_bad(skipped, 5)
    with pytest.raises(UserError) as caught:
        limit_bad(skipped, 4)
    assert str(caught.value) == (
        "5 bad items, more than download.max_bad 4 in params.yaml allows: "
        "0.jpg: truncated; 1.jpg: truncated; 2.jpg: truncated; and 2 more"
    )
