"""The one exception that a user is meant to read, and how a stage ends on it."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable

EXIT_USER_ERROR = 2
_SECOND_VOICE = 10  # seconds


class UserError(Exception):
    """Something the user can mend: names the file or key, what was found, and what was expected.

    The message is one or two lines. Stages print it without a traceback and exit with code 2.
    """


def first_of_several() -> bool:
    """Whether this process speaks for all: False in those that torchrun started beside the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a script's ``main``: a UserError becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            main()
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output has left, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
            sys.exit(141)
        except UserError as error:
            if not first_of_several():
                time.sleep(_SECOND_VOICE)  # most often the first process has the same to say, and ends this one with it
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            if first_of_several():
                print("interrupted: finished parts are kept, run the same command to go on", file=sys.stderr)
            sys.exit(130)

    return wrapper
