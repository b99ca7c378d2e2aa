"""Archives from a local server and from folders, good and bad."""

import hashlib

import pytest
from assertions import raises_naming
from served import GOOD, MD5, OTHER, SHA256

from crossmodal.datasets.archives import transfer
from crossmodal.datasets.archives.obtain import Archive, obtain_one_of
from crossmodal.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.0, 0.0))


def obtain(archive, *args, **kwargs):
    return obtain_one_of((archive,), *args, **kwargs)


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
            found = obtain(archive, tmp_path / "cache", None)
            assert found.path == tmp_path / "cache/good.zip"
            assert found.path.read_bytes() == GOOD
            assert (found.sha256, found.known) == (SHA256, True)
        assert len(server.requests) == 1
        assert files(tmp_path) == ["cache/good.zip"]

    def test_damaged_cache_is_downloaded_again(self, server, tmp_path):
        (tmp_path / "good.zip").write_bytes(GOOD[:100])
        found = obtain(archive_at(f"{server.url}/ok/good.zip"), tmp_path, None)
        assert found.path.read_bytes() == GOOD

    @pytest.mark.parametrize("kind", ["once500", "once_cut"])
    def test_passing_failure_is_tried_again(self, server, tmp_path, kind):
        found = obtain(archive_at(f"{server.url}/{kind}/good.zip"), tmp_path, None)
        assert found.path.read_bytes() == GOOD
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("kind", "requests", "reason"),
        [
            ("missing", 1, "HTTP 404"),
            ("always503", 3, "HTTP 503"),
            ("cut", 3, "complete"),
            ("corrupt", 1, f"expected sha256:{SHA256}"),
            ("page", 1, f"expected sha256:{SHA256}"),
        ],
    )
    def test_what_is_not_the_file_is_not_kept(self, server, tmp_path, kind, requests, reason):
        url = f"{server.url}/{kind}/good.zip"
        with raises_naming("good.zip", url, reason):
            obtain(archive_at(url), tmp_path, None)
        assert len(server.requests) == requests
        part = f"good.zip.part-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        assert files(tmp_path) == ([part, f"{part}.json"] if kind == "cut" else [])

    def test_without_known_checksum_a_complete_zip_is_taken(self, server, tmp_path):
        found = obtain(archive_at(f"{server.url}/ok/good.zip", hashes=()), tmp_path, None)
        assert (found.sha256, found.known) == (SHA256, None)
        page = f"{server.url}/page/good.zip"
        with raises_naming(page, "complete zip archive"):
            obtain(archive_at(page, hashes=()), tmp_path / "b", None)


class TestObtainFromMirror:
    @pytest.mark.parametrize("as_url", [False, True])
    def test_folder_is_used_in_place(self, tmp_path, as_url):
        (tmp_path / "my mirror").mkdir()
        path = tmp_path / "my mirror/good.zip"
        path.write_bytes(GOOD)
        mirror = path.parent.as_uri() if as_url else str(path.parent)
        found = obtain(archive_at("http://127.0.0.1:9/x"), tmp_path / "cache", mirror)
        assert (found.path, found.sha256, found.known) == (path, SHA256, True)
        assert not (tmp_path / "cache").exists()

    def test_address_is_cached_apart_from_the_public_file(self, server, tmp_path):
        archive = archive_at(f"{server.url}/ok/good.zip")
        for _ in range(2):
            found = obtain(archive, tmp_path, f"{server.url}/other/")
            assert (found.path.read_bytes(), found.known) == (OTHER, False)
        assert server.requests == ["/other/good.zip"]
        assert obtain(archive, tmp_path, None).path.read_bytes() == GOOD


class TestBrokenOff:
    def test_the_next_call_goes_on_and_leaves_nothing(self, server, tmp_path, monkeypatch):
        archive = archive_at(f"{server.url}/pieces/good.zip")
        (tmp_path / "good.zip.part-00000000").touch()  # begun at another address
        with monkeypatch.context() as patch, raises_naming(archive.urls[0], "complete"):
            patch.setattr(transfer, "RETRY_DELAYS", ())
            obtain(archive, tmp_path, None)
        assert obtain(archive, tmp_path, None).known
        assert server.ranges[:2] == [None, "bytes=100000-"]
        assert files(tmp_path) == ["good.zip"]

    def test_pieces_that_do_not_fit_are_got_again_in_one(self, server, tmp_path, capsys):
        """The server changed the file in between and does not say so."""
        found = obtain(archive_at(f"{server.url}/mixed/good.zip"), tmp_path, None)
        assert found.path.read_bytes() == GOOD
        assert "it was downloaded in pieces, getting it again from the start" in capsys.readouterr().err
        assert server.ranges.count(None) == 2

    def test_pieces_of_a_wrong_file_are_got_twice_and_no_more(self, server, tmp_path):
        server.files["good.zip"] = GOOD[::-1]
        url, found = f"{server.url}/pieces/good.zip", hashlib.sha256(GOOD[::-1]).hexdigest()
        with raises_naming(url, f"found sha256:{found}", f"expected sha256:{SHA256}"):
            obtain(archive_at(url), tmp_path, None)
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
            obtain(archive, tmp_path, source)
            assert obtain(archive, tmp_path, source, offline=True).path.read_bytes() == content
        assert len(server.requests) == 2


class TestSeveralForms:
    def test_the_first_that_can_be_had(self, server, tmp_path):
        forms = (Archive("a.zip", (f"{server.url}/missing/a.zip",)), Archive("b.zip", (f"{server.url}/ok/b.zip",)))
        assert obtain_one_of(forms, tmp_path, None).path == tmp_path / "b.zip"
        obtain_one_of(forms, tmp_path, None)
        assert len(server.requests) == 2  # a second call takes the second form from the cache


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", b' {"images": []}\n', None),
        ("a.json", b'{"images": [', "complete JSON object"),
        ("a.json", b"<html></html>", "complete JSON object"),
        ("a.tar.gz", b"<html></html>", "tar archive"),
    ],
)
def test_without_a_checksum_the_kind_of_file_must_be_right(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    if kind is None:
        assert obtain(Archive(name, ()), tmp_path / "cache", str(tmp_path)).known is None
    else:
        with raises_naming(tmp_path / name, kind):
            obtain(Archive(name, ()), tmp_path / "cache", str(tmp_path))
