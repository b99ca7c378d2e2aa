"""Findings of ``crossmodal doctor``, and checks that never raise.

A finding is a line of the report. Its ``state``: "ok", "part" (partly downloaded), "get" (will be obtained or made by
the pipeline), "fix" (blocks the pipeline until the user acts), "?" (unknown), "" (plain fact).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True)
class Finding:
    """One line; ``fix``: the remedy, if it blocks the pipeline."""

    state: str
    what: str
    text: str
    fix: str = ""


def never_raises(check: Callable[P, list[Finding]]) -> Callable[P, list[Finding]]:
    """Turn a check's exception into a finding: this command is for machines where things are broken."""

    @functools.wraps(check)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> list[Finding]:
        try:
            return check(*args, **kwargs)
        except Exception as error:  # whatever it is
            reason = " ".join(str(error).split())[:200] or "no reason given"
            return [Finding("?", check.__name__.removeprefix("check_"), f"{type(error).__name__}: {reason}")]

    return wrapper
