"""Assertions on messages: the key, file and value they name, not their wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crossmodal.errors import UserError


def assert_names(message: object, *parts: object) -> None:
    """Assert that an error or a printed text is one line and names every part: a key, a file, a value.

    Args:
        message: an exception, ``pytest.ExceptionInfo``, or text.
    """
    text = str(getattr(message, "value", message)).strip()
    assert "\n" not in text, text
    missing = [str(part) for part in parts if str(part) not in text]
    assert not missing, f"{missing} not in: {text}"


@contextmanager
def raises_naming(*parts: object) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """A block that raises a UserError which names every part: a key, a file, a value."""
    with pytest.raises(UserError) as error:
        yield error
    missing = [str(part) for part in parts if str(part) not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"
