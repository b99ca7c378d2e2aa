"""How a script ends whose reader has left, or whose disk takes no more."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from crossmodal.errors import disk_trouble, exits_cleanly
from crossmodal.training import processes

SCRIPT = """
from crossmodal.errors import exits_cleanly

@exits_cleanly
def main():
    for number in range(100_000):
        print(number)

main()
"""


def test_a_reader_that_leaves_is_no_traceback():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdout.readline() == b"0\n"
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 141


def write(path, error):
    """A function at work on a file, as the one that the message is to name."""
    part = path.with_suffix(".part")
    assert part
    raise error


def chained():
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")  # torch.save's
    error.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device; make room"),
        (OSError("1000000 requested and 32752 written"), "could not be written whole, the disk may be full; make room"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (chained(), "No space left on device; make room"),
    ],
)
def test_a_full_disk_is_one_line(error, reason, capsys):
    main = exits_cleanly(lambda: write(Path("models/x.h5"), error))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: models/x.part: {reason}")
    assert said.count("\n") == 1


def test_one_of_several_processes_leaves_its_error_to_the_one_that_started_it(tmp_path, monkeypatch, capsys):
    """And a rank that failed because another one had left does not hide the cause."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    with pytest.raises(SystemExit) as end:
        exits_cleanly(lambda: write(Path("models/x.h5"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))()
    assert (end.value.code, capsys.readouterr().err) == (2, "")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    failures = {0: ProcessFailure(0, 1, 1, "none"), 1: ProcessFailure(1, 2, 2, str(path))}

    def launch(*_):
        raise ChildFailedError("stages.train", failures)

    monkeypatch.setattr(processes, "elastic_launch", lambda *_: launch)
    with pytest.raises(SystemExit) as end:
        exits_cleanly(lambda: processes.start_processes(2, "stages.train"))()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: models/x.part: No space left on device")


def test_the_error_names_its_file():
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "No such file", "data/x")) is None  # no disk's trouble
    assert disk_trouble(OSError(errno.EACCES, "Permission denied", "data/x")) == "data/x: Permission denied"
    assert disk_trouble(NotADirectoryError(errno.ENOTDIR, "", "README.md/x")) == "README.md/x: Not a directory"
    assert disk_trouble(IsADirectoryError(errno.EISDIR, "", "params.yaml")) == "params.yaml: Is a directory"
    assert disk_trouble(OSError(errno.EROFS, "", "a", None, "b/c")) == f"b/c: {os.strerror(errno.EROFS)}"


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(2, "No such file", "x")])
def test_a_bug_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        exits_cleanly(main)()
