"""Captions in JSON: a line an image or a caption, COCO's, Karpathy's, and the list that ALBEF and BLIP train on."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from crossmodal.datasets.caption_columns import Rows, find_columns
from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.files.text_files import split_lines

FORMS = (
    'COCO\'s {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, Karpathy\'s '
    '{"images": [{"filename", "split", "sentences": [{"raw"}]}]} or a list [{"image", "caption"}]'
)


def line_rows(path: Path, text: str) -> Rows:
    """Rows of a file with a JSON object in every line."""
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            item = parse_json(line, str(path), nan=True, halves=True)
        except UserError:
            item = None
        yield f"line {number}", json_row(item)


def document_rows(path: Path, text: str) -> Rows:
    """Rows of a file that is one JSON value, in any of FORMS.

    Raises:
        UserError: not JSON, or none of FORMS.
    """
    try:
        content = parse_json(text, str(path), nan=True, halves=True, hook=_without_words)
    except UserError as error:
        raise UserError(f"{error}; expected {FORMS}") from None
    if isinstance(content, list) and any(isinstance(item, dict) for item in content):
        return ((f"item {number}", json_row(item)) for number, item in enumerate(content))
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and all(isinstance(image, dict) for image in images):
        annotations = content.get("annotations")
        if isinstance(annotations, list) and all(isinstance(image.get("id"), int | float | str) for image in images):
            return _coco_rows(images, annotations)
        if any("sentences" in image for image in images):
            return ((f"images[{number}]", _karpathy_row(image)) for number, image in enumerate(images))
    raise UserError(f"{path}: expected {FORMS}")


def json_id(value: Any) -> str | None:
    """An id as text: 1, 1.0 and "1" are one, as tools that write tables make them; None: it is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _without_words(item: dict[str, Any]) -> dict[str, Any]:
    """Without Karpathy's lists of words, which would take most of the memory."""
    item.pop("tokens", None)
    return item


def json_row(item: Any) -> dict[str, Any] | str:
    """Image, caption and split of a JSON object, by the names of ``caption_columns``, or what is wrong with it."""
    if not isinstance(item, dict):
        return "not a JSON object"
    names, values = list(item), list(item.values())
    columns = find_columns(names)
    if twice := next((positions for positions in columns.values() if len(positions) > 1), None):
        return f"{' and '.join(repr(names[position]) for position in twice)} in one object, expected one of them"
    return {key: values[position] for key, (position,) in columns.items()}


def _karpathy_row(image: dict[str, Any]) -> dict[str, Any] | str:
    name, folder, sentences = image.get("filename"), image.get("filepath"), image.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(item, dict) for item in sentences):
        return f"no list of sentences of {name!r}"
    name = f"{folder}/{name}" if isinstance(folder, str) and folder and isinstance(name, str) else name
    return {"image": name, "caption": [item.get("raw") for item in sentences], "split": image.get("split")}


def _coco_rows(images: list[dict[str, Any]], annotations: list[Any]) -> Rows:
    names: dict[str | None, list[Any]] = defaultdict(list)
    for image in images:
        own = names[json_id(image["id"])]
        if image.get("file_name") not in own:
            own.append(image.get("file_name"))
    for number, image in enumerate(images):  # in their order, and those without captions too
        name, others = image.get("file_name"), names[json_id(image["id"])]
        if len(others) > 1:
            other = next(item for item in others if item != name)
            yield f"images[{number}]", f"{name!r} has the id {image['id']}, and so has {other!r}: lists put together?"
        else:
            yield f"images[{number}]", {"image": name, "caption": [], "split": image.get("split")}
    for number, item in enumerate(annotations):
        key = json_id(item.get("image_id")) if isinstance(item, dict) else None
        own = names.get(key, []) if key is not None else []
        if len(own) == 1:
            yield f"annotations[{number}]", {"image": own[0], "caption": item.get("caption")}
        else:
            yield f"annotations[{number}]", "of an id that several images have" if own else "of no image in the list"
