"""How much one request may ask for: what is beyond is refused before any work is done on it."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path

from crossmodal.errors import UserError

MOST_RESULTS = 1_000  # of a query
MOST_SERVED = 200  # of a query that the web server answers: each comes with its regions
MOST_QUERIES = 1_000  # of a request
MOST_CHARACTERS = 10_000  # of a sentence, of which captions.max_tokens, 512 at most, are read
MOST_IMAGE_BYTES = 32 * 10**6  # of an image file that a client sends
_SHOWN = 100  # characters of what was found


def check_results(k: object) -> int:
    """k, the number of results of a query.

    Raises:
        UserError: not a whole number from 1 to MOST_RESULTS; True and 5.0 are none.
    """
    whole = isinstance(k, Integral) and not isinstance(k, bool)
    if not whole or not 1 <= k <= MOST_RESULTS:
        raise UserError(f"k: expected a whole number from 1 to {MOST_RESULTS:,}, found {shown(k)}")
    return int(k)


def check_queries(count: int) -> None:
    """The number of queries of a request.

    Raises:
        UserError: above MOST_QUERIES.
    """
    if count > MOST_QUERIES:
        raise UserError(f"queries: {count:,} rows, expected {MOST_QUERIES:,} at most; send them in several requests")


def check_sentence(sentence: str) -> None:
    """The sentence of a query.

    Raises:
        UserError: longer than MOST_CHARACTERS, not UTF-8, or empty.
    """
    if len(sentence) > MOST_CHARACTERS:
        raise UserError(
            f"the sentence {shown(sentence)} has {len(sentence):,} characters, expected {MOST_CHARACTERS:,} at most"
        )
    try:
        sentence.encode()
    except UnicodeEncodeError:  # from a terminal with another encoding
        raise UserError(f"the sentence {shown(sentence)} is not UTF-8 text") from None
    if not sentence.strip():
        raise UserError("the sentence is empty; give one such as 'two dogs running on grass'")


def check_image(size: int) -> None:
    """The bytes of an image file.

    Raises:
        UserError: above MOST_IMAGE_BYTES.
    """
    if size > MOST_IMAGE_BYTES:
        raise UserError(f"the image has {size / 1e6:,.1f} MB, expected {MOST_IMAGE_BYTES / 1e6:,.0f} MB at most")


def shown(value: object) -> str:
    """A value in one line of a message: the beginning of what is long, control characters escaped.

    Text and other values as Python writes them, a path without quotes.
    """
    if isinstance(value, Path):
        text = ascii(str(value))[1:-1]
    else:
        try:
            text = ascii(value[: _SHOWN + 1]) if isinstance(value, str) else ascii(value)
        except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists
            text = f"a {type(value).__name__} out of all bounds"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_file(path: Path | str) -> bool:
    """Whether there is such a file; text that no path can be, such as one of thousands of characters, names none."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
