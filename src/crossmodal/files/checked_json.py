"""JSON files, written whole, read and checked: what is wrong is said in one line, with the file and its line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import first_problem

_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # may be the half of a character, or of a pair
_HALF = re.compile("[\ud800-\udfff]")

Hook = Callable[[dict[str, Any]], Any]


class Record(BaseModel):
    """The content of a JSON file that a stage wrote, or of a part of one: every key there, none besides, no value of
    another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


def parse_json(
    text: str | bytes,
    name: str,
    kind: type | None = None,
    *,
    nan: bool = False,
    halves: bool = False,
    hook: Hook | None = None,
) -> Any:
    """What JSON text says.

    Args:
        text: bytes are UTF-8.
        name: of the file, and of the line in it where the text is one of many; for messages.
        kind: dict or list, where the text has to hold one.
        nan: NaN and Infinity are taken: metrics may be undefined.
        halves: text with half of a character is taken; whoever asks looks for it.
        hook: called with every object, in place of which stands what it returns.

    Raises:
        UserError: not JSON; nested too deep; a number that is not finite or has thousands of digits; text with half
            of a character (a surrogate without the other), which no file could be written with; not a ``kind``.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        content = json.loads(text, object_hook=hook, parse_constant=None if nan else _not_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not readable as JSON: not UTF-8 text, at byte {error.start:,}") from None
    except RecursionError:
        raise UserError(f"{name}: not readable as JSON: lists or objects are nested too deep") from None
    except ValueError as error:
        raise UserError(f"{name}: not readable as JSON: {_reason(error)}") from None
    if kind is not None and not isinstance(content, kind):
        raise UserError(f"{name}: expected {_NAMES[kind]}, found {_NAMES.get(type(content), 'null')}")
    if not halves and (_ESCAPED_HALF.search(text) or _HALF.search(text)):
        _refuse_halves(content, name)
    return content


def read_json(
    path: Path,
    kind: type | None = None,
    *,
    advice: str = "",
    name: str = "",
    nan: bool = False,
    halves: bool = False,
    hook: Hook | None = None,
) -> Any:
    """What a JSON file holds; see ``parse_json``.

    Args:
        advice: what to do where there is no such file, e.g. "run the train stage first".
        name: of the file in messages, where that is not ``path``.

    Raises:
        UserError: missing, unreadable, not a plain file; or see ``parse_json``.
    """
    name = name or str(path)
    return parse_json(read_bytes(path, advice=advice, name=name), name, kind, nan=nan, halves=halves, hook=hook)


def read_json_lines(path: Path, kind: type | None = None, *, advice: str = "") -> Iterator[tuple[str, Any]]:
    """Each line of a file that holds JSON on every line, after the line's name: "FILE, line 3".

    Raises:
        UserError: see ``read_json``; names the line.
    """
    for number, line in enumerate(read_bytes(path, advice=advice).removesuffix(b"\n").split(b"\n"), start=1):
        name = f"{path}, line {number}"
        yield name, parse_json(line, name, kind)


def read_record(path: Path, kind: type[Kind], *, advice: str = "") -> Kind:
    """What a JSON file holds, checked by type.

    Raises:
        UserError: see ``read_json``; or a key is missing, unknown, or of another type or range, and is named.
    """
    return as_record(read_json(path, dict, advice=advice), kind, str(path))


def as_record(content: Any, kind: type[Kind], name: str) -> Kind:
    """Parsed JSON as a record; ``name`` is that of the file.

    Raises:
        UserError: a key is missing, unknown, or of another type or range.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{name}: {first_problem(error)}") from None


def read_bytes(path: Path, *, advice: str = "", name: str = "") -> bytes:
    """The bytes of a plain file; a device or a pipe could be without end.

    Raises:
        UserError: missing, or not readable.
    """
    name = name or str(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{name}: not a plain file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name}: not found{advice and f'; {advice}'}") from None
    except OSError as error:
        raise UserError(f"{name}: not readable ({error.strerror or error})") from None


def write_atomic(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it: whoever looks finds the old text or the new one."""
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
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:20]} is not finite")


def _reason(error: ValueError) -> str:
    """One line; Python's own of a long number tells how to change its limit."""
    return "a number of thousands of digits" if "integer string conversion" in str(error) else str(error)


def _refuse_halves(content: Any, name: str) -> None:
    """See that no text in the content, keys included, holds half of a character."""
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += [(key, each) for each in value]
            left += [(f"{key}.{each}" if key else str(each), of) for each, of in value.items()]
        elif isinstance(value, list):
            left += [(f"{key}[{number}]", each) for number, each in enumerate(value)]
        elif isinstance(value, str) and _HALF.search(value):
            raise UserError(
                f"{name}: {ascii(key)[1:-1][:100]}{key and ': '}text with half of a character, {ascii(value)[:80]}"
            )
