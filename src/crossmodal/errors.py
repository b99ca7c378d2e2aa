"""The user-facing exception, and clean exits on it or on a full or read-only disk."""

from __future__ import annotations

import errno
import functools
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
_LONGEST_NAME = 300  # characters in a message, of a path that is too long to be one
_SECOND_VOICE = 30  # seconds; on a busy machine processes are far apart


class UserError(Exception):
    """An error the user can fix: names the file or key, what was found, and what was expected.

    The message is one or two lines. Stages print it without a traceback and exit with code 2.
    """


def first_of_several() -> bool:
    """Whether this process prints for the group: False in all of torchrun's processes but the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def exits_cleanly(main: Callable[[], None], *, resumes: bool = True) -> Callable[[], None]:
    """Wrap a script's ``main``: a UserError or a disk that takes no more becomes a line on stderr and exit code 2.

    ``resumes``: whether it goes on, when it is run again, where Ctrl-C stopped it, as stages do; exit code 130.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        log_printably()
        try:
            main()
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output has left, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
            sys.exit(141)
        except KeyboardInterrupt:
            if first_of_several():
                kept = ": finished parts are kept, run the same command to go on" if resumes else ""
                print(f"interrupted{kept}", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else disk_trouble(error)
            if text is None:
                raise
            if not first_of_several():
                time.sleep(_SECOND_VOICE)  # most often the first process has the same to say, and ends this one with it
            print(f"error: {printable_lines(text)}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)

    return wrapper


def first_line(error: BaseException) -> str:
    """First line of a library error, for a message of one line; its type where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_path(error: Exception) -> str:
    """The text of an error without the absolute path of its file, for an out that is the same on every machine."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def disk_trouble(error: Exception) -> str | None:
    """The message for a write that failed on a full, read-only or failing disk or an impossible path; else None.

    safetensors, torch, NumPy, PIL and the tokenizers each have a word of their own for it, and few name the file.
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
    advice = "; make room and run the same command again, what is finished is kept" if number in _NO_ROOM else ""
    return f"{_file_of(error)}: {reason}{advice}"


def _file_of(error: Exception) -> str:
    """The file of an error: its own, else the one that the innermost function with a path was at work on."""
    named = isinstance(error, OSError) and (error.filename2 or error.filename)
    if named:
        name = os.fsdecode(named)
        return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        paths = {name: value for name, value in frame.f_locals.items() if isinstance(value, Path)}
        if paths:
            return str(paths.get("part") or next(iter(paths.values())))
    return "a file of this project"
