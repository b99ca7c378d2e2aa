"""Reading and checking of hand-written YAML files; errors are one line that names file and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from crossmodal.errors import UserError

_SHOWN = 200  # characters of a wrong value in a message
_ADDED = re.compile(
    r"\[key\]|constrained-\w+|literal\[.*\]"
)  # by pydantic to a path: a wrong key, one of several types


class Section(BaseModel):
    """A part of such a file: unknown keys and lossy conversions are refused.

    Text that is a number counts as one, since YAML takes ``1e-3`` (without a dot) for text; true and false do not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _truth_is_no_number(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        taken = check(value)
        if isinstance(value, bool) and taken is not value:
            raise ValueError("input should be a number")
        return taken


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: missing, or not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the root of the repository") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as the date 2024-13-45
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem in one line, starting with its key and ending with the number of further ones.

    A value that is of none of several types is one problem.
    """
    problems = error.errors()
    first, key = problems[0], _key(problems[0])
    same = [problem for problem in problems if _key(problem) == key]
    if first["type"] == "extra_forbidden":
        text = f"{key}: unknown key"
    elif first["type"] == "missing":
        text = f"{key}: missing"
    else:
        messages = [problem["msg"].removeprefix("Value error, ") for problem in same]
        message = " or ".join([messages[0], *(text.removeprefix("Input should be ") for text in messages[1:])])
        message = message[0].lower() + message[1:]
        found = "" if isinstance(first["input"], dict | BaseModel) else f", found {_shown(first['input'])}"
        text = f"{key}: {message}{found}" if key else message  # no key: of settings that do not go together
    others = len(problems) - len(same)
    more = f" (and {others} more)" if others else ""
    return f"{' '.join(text.split())}{more}"


def _key(problem: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in problem["loc"] if not _ADDED.fullmatch(str(part)))


def dotted(content: Mapping[str, Any], prefix: str = "", separator: str = ".") -> dict[str, Any]:
    """Nested content by dotted key: ``{"a": {"b": 1, "c": {}}}`` becomes ``{"a.b": 1, "a.c": {}}``."""
    flat = {}
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted(value, f"{prefix}{name}{separator}", separator)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: Any) -> str:
    """A value cut to a length that fits a message."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number out of all bounds"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
