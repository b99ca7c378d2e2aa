"""Archives from a local server and from folders, good and bad."""

import hashlib
import socket

import pytest
from served import GOOD, MD5, OTHER, SHA256

from crossmodal.datasets.download import Archive, limit_bad, obtain, obtain_one_of
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


class TestBrokenOff:
    def test_the_next_call_goes_on_and_leaves_nothing(self, server, tmp_path):
        archive = archive_at(f"{server.url}/pieces/good.zip")
        (tmp_path / "good.zip.part-00000000").touch()  # begun at another address
        with pytest.raises(UserError, match="cut before the file was complete"):
            obtain(archive, tmp_path, None, delays=())
        assert obtain(archive, tmp_path, None, delays=QUICK).known
        assert server.ranges[:2] == [None, "bytes=100000-"]
        assert files(tmp_path) == ["good.zip"]

    def test_pieces_that_do_not_fit_are_got_again_in_one(self, server, tmp_path, caplog):
        """The server changed the file in between and does not say so."""
        found = obtain(archive_at(f"{server.url}/mixed/good.zip"), tmp_path, None, delays=QUICK)
        assert found.path.read_bytes() == GOOD
        assert "it was downloaded in pieces, getting it again from the start" in caplog.text
        assert server.ranges.count(None) == 2

    def test_pieces_of_a_wrong_file_are_got_twice_and_no_more(self, server, tmp_path):
        server.files["good.zip"] = GOOD[::-1]
        with pytest.raises(UserError, match="wrong checksum"):
            obtain(archive_at(f"{server.url}/pieces/good.zip"), tmp_path, None, delays=QUICK)
        assert server.ranges.count(None) == 2
        assert files(tmp_path) == []


class TestOffline:
    def test_no_address_is_asked(self, server, tmp_path):
        archive, mirror = archive_at(f"{server.url}/ok/good.zip"), f"{server.url}/other"
        with pytest.raises(UserError) as caught:
            obtain(archive, tmp_path, mirror, offline=True)
        message = str(caught.value)
        assert message.startswith("good.zip: not obtained (download.offline). Tried ")
        assert f"Get it from {archive.urls[0]}. Put it into a folder and set download.mirror" in message
        assert server.requests == []

    def test_earlier_downloads_are_taken(self, server, tmp_path):
        archive, mirror = archive_at(f"{server.url}/ok/good.zip"), f"{server.url}/other"
        for source, content in ((None, GOOD), (mirror, OTHER)):
            obtain(archive, tmp_path, source, delays=QUICK)
            assert obtain(archive, tmp_path, source, offline=True).path.read_bytes() == content
        assert len(server.requests) == 2

    def test_folder_is_taken(self, tmp_path):
        (tmp_path / "good.zip").write_bytes(GOOD)
        assert obtain(archive_at(), tmp_path / "cache", str(tmp_path), offline=True).known


class TestSeveralForms:
    def test_the_first_that_can_be_had(self, server, tmp_path):
        forms = (Archive("a.zip", (f"{server.url}/missing/a.zip",)), Archive("b.zip", (f"{server.url}/ok/b.zip",)))
        assert obtain_one_of(forms, tmp_path, None, delays=QUICK).path == tmp_path / "b.zip"
        obtain_one_of(forms, tmp_path, None, delays=QUICK)
        assert len(server.requests) == 2  # a second call takes the second form from the cache

    def test_mirror_goes_before_addresses(self, server, tmp_path):
        forms = (Archive("a.zip", (f"{server.url}/ok/a.zip",)), Archive("b.zip", ()))
        (tmp_path / "b.zip").write_bytes(OTHER)
        assert obtain_one_of(forms, tmp_path / "cache", str(tmp_path)).path == tmp_path / "b.zip"
        assert server.requests == []

    @pytest.mark.parametrize("mirror", [None, "SOME"])
    def test_terms_are_one_message(self, tmp_path, mirror):
        """What to get, from where, and where to put it."""
        forms = (Archive("a.tar.gz", (), terms="Ask at https://example.org for a.tar.gz (4 GB)."), Archive("a.zip", ()))
        with pytest.raises(UserError) as caught:
            obtain_one_of(forms, tmp_path / "cache", mirror and str(tmp_path))
        message = str(caught.value)
        assert message.startswith("a.tar.gz or a.zip: not obtained. Tried ")
        assert (f"{tmp_path / 'a.tar.gz'}: no such file; {tmp_path / 'a.zip'}" in message) == bool(mirror)
        assert message.endswith(
            "\nAsk at https://example.org for a.tar.gz (4 GB). "
            "Put it into a folder and set download.mirror in params.yaml to that folder."
        )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b' {"images": []}\n', None),
        ("a.json", b'{"images": [', "not a complete JSON object"),
        ("a.json", b"<html></html>", "not a complete JSON object"),
        ("a.tar.gz", b"<html></html>", "not a tar archive"),
    ],
)
def test_without_a_checksum_the_kind_of_file_must_be_right(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    if problem is None:
        assert obtain(Archive(name, ()), tmp_path / "cache", str(tmp_path)).known is None
    else:
        with pytest.raises(UserError, match=f"{name}: {problem}"):
            obtain(Archive(name, ()), tmp_path / "cache", str(tmp_path))


def test_limit_bad():
    skipped = [Skipped(f"{number}.jpg", "truncated") for number in range(5)]
    limit_bad(skipped, 5)
    with pytest.raises(UserError) as caught:
        limit_bad(skipped, 4)
    assert str(caught.value) == (
        "5 bad items, more than download.max_bad 4 in params.yaml allows: "
        "0.jpg: truncated; 1.jpg: truncated; 2.jpg: truncated; and 2 more"
    )
