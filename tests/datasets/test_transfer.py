"""One file over HTTP from a server that breaks off, denies ranges, changes the file or lies about it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from assertions import raises_naming
from served import GOOD, PIECE

from crossmodal.datasets.archives import transfer
from crossmodal.datasets.archives.transfer import TransferError, discard, fetch

ROOT = Path(__file__).resolve().parents[2]
QUICK = (0.0, 0.0)


def rest(start):
    return f"bytes={start}-"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "good.zip.part"


def test_whole_file_in_one_answer(server, part):
    assert fetch(f"{server.url}/ok/good.zip", part, QUICK) is False
    assert part.read_bytes() == GOOD
    assert server.ranges == [None]


@pytest.mark.parametrize("kind", ["pieces", "unmarked"])
def test_broken_off_transfer_goes_on_where_it_was(server, part, kind):
    """More cuts than there are delays: each attempt that gains something is a new start."""
    assert len(GOOD) > 3 * PIECE
    assert fetch(f"{server.url}/{kind}/good.zip", part, (0.0,)) is True
    assert part.read_bytes() == GOOD
    assert server.ranges == [None, *(rest(start) for start in range(PIECE, len(GOOD), PIECE))]


def test_later_call_goes_on(server, part):
    url = f"{server.url}/pieces/good.zip"
    with pytest.raises(TransferError, match="cut before the file was complete"):
        fetch(url, part, ())
    assert part.read_bytes() == GOOD[:PIECE]
    assert fetch(url, part, (0.0,)) is True
    assert part.read_bytes() == GOOD
    assert server.ranges[1] == rest(PIECE)


def test_goes_on_after_a_kill(server, part):
    url = f"{server.url}/slow/good.zip"
    code = "import sys; from pathlib import Path; from crossmodal.datasets.archives.transfer import fetch; "
    code += "fetch(sys.argv[1], Path(sys.argv[2]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", code, url, str(part)], env=environment)
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = part.stat().st_size
    assert 0 < size < len(GOOD)
    assert fetch(url, part, ()) is True
    assert part.read_bytes() == GOOD
    assert server.ranges == [None, rest(size)]


@pytest.mark.parametrize("kind", ["rangeless", "changing"])
def test_server_without_ranges_or_with_another_file_sends_it_whole(server, part, kind):
    url = f"{server.url}/{kind}/good.zip"
    part.write_bytes(b"x" * PIECE)
    note = {"url": url, "total": len(GOOD), "validator": '"former"'}
    Path(f"{part}.json").write_text(json.dumps(note))
    if kind == "changing":
        with pytest.raises(TransferError):
            fetch(url, part, ())
        assert part.read_bytes() == GOOD[:PIECE]
    else:
        assert fetch(url, part, ()) is False
        assert part.read_bytes() == GOOD
    assert server.ranges == [rest(PIECE)]


@pytest.mark.parametrize("note", [None, {"url": "http://elsewhere/good.zip", "total": 10**6}, {"url": "SAME"}, []])
def test_part_of_another_origin_is_not_continued(server, part, note):
    url = f"{server.url}/ok/good.zip"
    part.write_bytes(b"x" * 10)
    if note is not None:
        Path(f"{part}.json").write_text(json.dumps(note).replace("SAME", url))
    assert fetch(url, part, ()) is False
    assert part.read_bytes() == GOOD
    assert server.ranges == [None]


def test_part_that_is_already_whole(server, part):
    """Killed between the last byte and the check."""
    url = f"{server.url}/ok/good.zip"
    fetch(url, part, ())
    assert fetch(url, part, ()) is True
    assert part.read_bytes() == GOOD
    assert server.ranges == [None, rest(len(GOOD))]


def test_answer_to_another_range_is_thrown_away(server, part):
    with pytest.raises(TransferError, match="not the part that was asked for"):
        fetch(f"{server.url}/shifted/good.zip", part, (0.0,))
    assert not part.exists()


def test_more_is_promised_than_comes(server, part):
    url = f"{server.url}/too_long/good.zip"
    with pytest.raises(TransferError, match="cut before the file was complete"):
        fetch(url, part, ())
    assert part.read_bytes() == GOOD
    assert fetch(url, part, ()) is True  # asked for the rest, the server says that there is none
    assert server.ranges == [None, rest(len(GOOD))]


def test_less_is_promised_than_there_is(server, part):
    """What HTTP calls complete: only the checksum can tell."""
    fetch(f"{server.url}/too_short/good.zip", part, ())
    assert part.read_bytes() == GOOD[: len(GOOD) - (len(GOOD) + 1) // 2]


@pytest.mark.parametrize("kind", ["lengthless", "encoded"])
def test_bytes_come_as_they_are(server, part, kind):
    fetch(f"{server.url}/{kind}/good.zip", part, ())
    assert part.read_bytes() == GOOD


def test_server_says_how_long_to_wait(server, part, monkeypatch):
    slept = []
    monkeypatch.setattr(transfer.time, "sleep", slept.append)
    fetch(f"{server.url}/busy/good.zip", part, (1.0,))
    assert slept[0] == 7.0  # the server's own thread sleeps too, by 0
    assert part.read_bytes() == GOOD


def test_delays_are_kept(server, part, monkeypatch):
    slept = []
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: slept.append(seconds) if seconds else None)
    with pytest.raises(TransferError, match="HTTP 503"):
        fetch(f"{server.url}/always503/good.zip", part)
    assert slept == [1.0, 4.0]


def test_no_address_at_all(part):
    with pytest.raises(TransferError, match="not downloadable"):
        fetch("nowhere", part, QUICK)


def test_too_big_for_the_disk(server, part, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    url = f"{server.url}/ok/good.zip"
    with raises_naming(part.parent, url, f"needs {len(GOOD) / 1000:.1f} kB", "only 1.0 kB"):
        fetch(url, part, QUICK)
    assert not part.exists()


def test_discard(part):
    part.touch()
    Path(f"{part}.json").touch()
    discard(part)
    discard(part)
    assert not list(part.parent.iterdir())


def test_a_body_without_end_is_given_up(server, part):
    with pytest.raises(TransferError, match=r"more than the 1,000,000 bytes that were expected"):
        fetch(f"{server.url}/endless/good.zip", part, (), most=1_000_000)
    assert not part.exists()
    with pytest.raises(TransferError, match="are offered, expected at most 1,000"):
        fetch(f"{server.url}/ok/good.zip", part, (), most=1000)
    assert fetch(f"{server.url}/ok/good.zip", part, (), most=len(GOOD)) is False
    assert part.read_bytes() == GOOD


def test_numbers_of_thousands_of_digits_in_headers(server, part, monkeypatch):
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    fetch(f"{server.url}/digits/good.zip", part, (0.0,))
    assert part.read_bytes() == GOOD
