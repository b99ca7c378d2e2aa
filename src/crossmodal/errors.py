"""The user-facing exception, and clean exits on it or on a full or read-only disk."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from crossmodal.terminal import log_printably, printable_lines

EXIT_USER_ERROR = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ENTRY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_CUT_OFF = re.compile(r"\d+ requested and \d+ written")  # NumPy, which gives no reason
_LONGEST_NAME = 300  # characters of a path in a message


class UserError(Exception):
    """An error the user can fix: names the file or key, the value found, and the expected one, in one or two lines.

    Stages print it without a traceback and exit with code 2.
    """


def first_of_several() -> bool:
    """Whether this process prints for its group: True but in torchrun's processes of rank 1 and more."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def exits_cleanly(main: Callable[[], None], *, resumes: bool = True) -> Callable[[], None]:
    """Wrap a script's ``main``: a UserError or a full or read-only disk becomes a line on stderr and exit code 2.

    ``resumes``: whether the script resumes after Ctrl-C (exit code 130) when run again, as stages do.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        log_printably()
        try:
            main()
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of the output has ended, such as head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
            sys.exit(141)
        except KeyboardInterrupt:
            if first_of_several():
                kept = ": finished parts are kept, run the same command to resume" if resumes else ""
                print(f"interrupted{kept}", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else disk_trouble(error)
            if text is None:
                raise
            _report(text)
            sys.exit(EXIT_USER_ERROR)

    return wrapper


def _report(text: str) -> None:
    """Print an error, or leave it to the program that started this process as one of a group, which prints one."""
    try:
        failure = {"message": text, "timestamp": int(time.time())}  # as ProcessFailure of torch reads it
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(failure))
    except (KeyError, OSError):
        print(f"error: {printable_lines(text)}", file=sys.stderr)


def first_line(error: BaseException) -> str:
    """First line of a library error, or its type if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_path(error: Exception) -> str:
    """Text of an error without the path of its file, for outs that are the same on every machine."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def disk_trouble(error: Exception) -> str | None:
    """Message for a write that failed on a full, read-only or failing disk or an impossible path; else None.

    safetensors, torch, NumPy, PIL and tokenizers raise different errors for it, most without the file's name.
    """
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    numbers = [cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno in _NO_ROOM + _NO_ENTRY]
    numbers += [code for code in (*_NO_ROOM, errno.EROFS) if os.strerror(code) in str(error)]
    if numbers:
        number, reason = numbers[0], os.strerror(numbers[0])
    elif _CUT_OFF.search(str(error)):
        number, reason = errno.ENOSPC, "could not be written whole, the disk may be full"
    else:
        return None
    advice = "; make room and run the same command again, finished parts are kept" if number in _NO_ROOM else ""
    return f"{_file_of(error)}: {reason}{advice}"


def _file_of(error: Exception) -> str:
    """The file of an error: its own, else a path in the innermost function that has one.

    A failed write on an open file names none, and neither do most libraries.
    """
    named = isinstance(error, OSError) and (error.filename2 or error.filename)
    if named:
        name = os.fsdecode(named)
        return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        paths = {name: value for name, value in frame.f_locals.items() if isinstance(value, Path)}
        if paths:
            return str(paths.get("part") or next(iter(paths.values())))
    return "a file of this project"
