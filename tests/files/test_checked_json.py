"""JSON from anywhere: what cannot be kept or compared is refused in one line, what is sound is read as it is."""

import json
import os

import pytest
from assertions import raises_naming

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, parse_json, read_json, read_json_lines, read_record, write_json

HOSTILE = {
    "deep list": "[" * 10**6 + "]" * 10**6,
    "deep object": '{"a":' * 10**6,
    "digits": "9" * 5000,
    "huge": '{"a": 1e999}',
    "NaN": "NaN",
    "cut": '{"a": [1, 2',
    "half": '{"a": ["x", "\\ud83d"]}',
    "half in a key": '{"\\udc00": 1}',
    "latin": b'{"a": "\xe9"}',
    "empty": "",
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(tmp_path, name):
    path = write(tmp_path / "a.json", HOSTILE[name])
    with pytest.raises(UserError) as error:
        read_json(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < len(str(path)) + 200
    message.encode("ascii")


@pytest.mark.parametrize("value", [{}, [], "", 0, 1.5, True, None, "😀", 10**400, [[[1]]], {"ä": [None, -0.25]}])
def test_what_is_sound_is_read_as_python_reads_it(tmp_path, value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text, "a.json") == value == json.loads(text)
        assert read_json(write(tmp_path / "a.json", text)) == value


@pytest.mark.parametrize(("content", "kind"), [("[]", dict), ("{}", list), ("null", dict), ("3", list), ('"a"', dict)])
def test_another_kind(content, kind):
    with raises_naming("a.json"):
        parse_json(content, "a.json", kind)


def test_metrics_may_be_undefined():
    assert parse_json('{"a": NaN}', "a.json", nan=True)["a"] != 0


def test_no_plain_file(tmp_path):
    with raises_naming("none.json"):
        read_json(tmp_path / "none.json", advice="run it")
    os.mkfifo(tmp_path / "pipe.json")  # would wait for a writer
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe.json", "a pipe")):
        with raises_naming(path, kind, "a file"):
            read_json(path)


def test_the_line_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}\n[3]\n')
    lines = read_json_lines(path, dict)
    assert [next(lines)[1], next(lines)[1]] == [{"a": 1}, {"a": 2}]
    with raises_naming("a.jsonl", "3"):
        next(lines)


class Pair(Record):
    number: int
    names: list[str]


def test_a_record_takes_no_other_types(tmp_path):
    good = {"number": 3, "names": ["a"]}
    path = tmp_path / "a.json"
    write_json(path, good)
    assert read_record(path, Pair).model_dump() == good
    for change, key, *named in (
        ({"number": "3"}, "number", "integer", "'3'"),
        ({"number": 3.0}, "number", "integer", "3.0"),
        ({"number": True}, "number", "integer", "True"),
        ({"names": "a"}, "names", "list", "'a'"),
        ({"names": [1]}, "names.0", "string", "found 1"),
        ({"more": 1}, "more", "unknown"),
    ):
        write_json(path, good | change)
        with raises_naming(f"{path}: {key}:", *named):
            read_record(path, Pair)


@pytest.mark.parametrize("indent", [None, 0, 1, 2])
def test_written_as_json_dumps_does(tmp_path, indent):
    content = {"a": [1, 2.5, None], "ä": {"b": "c"}}
    for escaped in (True, False):
        write_json(tmp_path / "a.json", content, indent=indent, ensure_ascii=escaped)
        expected = json.dumps(content, indent=indent, ensure_ascii=escaped) + "\n"
        assert (tmp_path / "a.json").read_bytes() == expected.encode()
    with raises_naming(tmp_path / "b.json", ascii("\ud83d")):
        write_json(tmp_path / "b.json", "\ud83d", ensure_ascii=False)
    assert not (tmp_path / "b.json").exists()
