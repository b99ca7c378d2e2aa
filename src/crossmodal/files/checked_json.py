"""JSON files, written whole, read and checked: what is wrong is said in one line, with the file and its line."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import first_problem
from crossmodal.files.text_files import read_bytes

_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # may be the half of a character, or of a pair
_HALF = re.compile("[\ud800-\udfff]")

Hook = Callable[[dict[str, Any]], Any]


class Record(BaseModel):
    """JSON that a stage wrote, a file or a part of one: every key is there, no other key, no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind")
_adapter = functools.cache(TypeAdapter)


def parse_json(
    text: str | bytes,
    name: str,
    kind: type | None = None,
    *,
    nan: bool = False,
    halves: bool = False,
    hook: Hook | None = None,
) -> Any:
    """The content of JSON text; bytes are UTF-8.

    Args:
        name: of the file, and of the line in it where the text is one of many; for messages.
        kind: dict or list, where the text has to hold one.
        nan: accept NaN and Infinity: metrics may be undefined.
        halves: accept text with half of a character; the caller checks for it.
        hook: ``json.loads``'s object_hook.

    Raises:
        UserError: not JSON; nested too deep; a number that is not finite or has thousands of digits; text with half
            of a character (a surrogate without the other), which no file could be written with; not a ``kind``.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        content = json.loads(text, object_hook=hook, parse_constant=None if nan else _finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not readable as JSON: not UTF-8 text, at byte {error.start:,}") from None
    except RecursionError:
        raise UserError(f"{name}: not readable as JSON: lists or objects are nested too deep") from None
    except ValueError as error:
        # Python's own reason for a long number says how to change its limit.
        reason = "a number of thousands of digits" if "integer string conversion" in str(error) else error
        raise UserError(f"{name}: not readable as JSON: {reason}") from None
    if kind is not None and not isinstance(content, kind):
        raise UserError(f"{name}: expected {_NAMES[kind]}, found {_NAMES.get(type(content), 'null')}")
    if not halves and (_ESCAPED_HALF.search(text) or _HALF.search(text)):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            around = error.object[max(error.start - 40, 0) : error.start + 40]
            raise UserError(f"{name}: text with half of a character, {around!a}") from None
    return content


def read_json(path: Path, kind: type | None = None, *, advice: str = "", nan: bool = False) -> Any:
    """The content of a JSON file; see ``parse_json``.

    Args:
        advice: what to do where there is no such file, e.g. "run the train stage first".

    Raises:
        UserError: missing, unreadable, not a plain file; or see ``parse_json``.
    """
    return parse_json(read_bytes(path, advice=advice), str(path), kind, nan=nan)


def read_json_lines(path: Path, kind: type | None = None, *, advice: str = "") -> Iterator[tuple[str, Any]]:
    """Each line of a file that holds JSON on every line, after the line's name: "FILE, line 3".

    Raises:
        UserError: see ``read_json``; names the line.
    """
    for number, line in enumerate(read_bytes(path, advice=advice).removesuffix(b"\n").split(b"\n"), start=1):
        name = f"{path}, line {number}"
        yield name, parse_json(line, name, kind)


def read_record(path: Path, kind: type[Kind], *, advice: str = "") -> Kind:
    """``as_record`` of a JSON file; ``advice`` as in ``read_json``."""
    return as_record(read_json(path, dict, advice=advice), kind, str(path))


def as_record(content: Any, kind: type[Kind], name: str) -> Kind:
    """Parsed JSON as a pydantic model or a dataclass; ``name`` is that of the file.

    Raises:
        UserError: a key is missing, unknown, or of another type or range, and is named.
    """
    try:
        return _adapter(kind).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{name}: {first_problem(error)}") from None


def write_atomic(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that a reader finds the old text or the new one."""
    part = path.with_suffix(".part")
    part.write_bytes(text.encode())
    part.replace(path)


def write_json(path: Path, content: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write a JSON file with a line break at its end, whole as ``write_atomic`` does.

    Raises:
        UserError: text with half of a character, which is not UTF-8 (without ``ensure_ascii``).
    """
    text = json.dumps(content, indent=indent, ensure_ascii=ensure_ascii)
    try:
        write_atomic(path, f"{text}\n")
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: not written: text with half of a character, {error.object[error.start]!a}") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value
