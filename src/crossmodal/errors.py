"""The one exception that a user is meant to read, and how a stage ends on it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Something the user can mend: names the file or key, what was found, and what was expected.

    The message is one or two lines. Stages print it without a traceback and exit with code 2.
    """


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a script's ``main``: a UserError becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            print("interrupted: finished parts are kept, run the same command to go on", file=sys.stderr)
            sys.exit(130)

    return wrapper
