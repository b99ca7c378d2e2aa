"""The origin of a gallery of ``crossmodal embed``: the content of its embed.json."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, read_record
from crossmodal.workspace import content_key

FILE = "embed.json"
Form = Literal["gallery", "parquet", "lance"]
SUFFIXES = (".json", ".safetensors", ".txt")  # of a network's files; .txt: vocabularies of tokenizers
ONLY_TRAINING = {"metrics.json"}  # of the detector stage


class Embedded(Record):
    """embed.json.

    form: of ``crossmodal embed --format``. made_by: key of models and settings; a row made by others is not kept.
    detector: see ``detector_key``; empty in galleries of former versions.
    """

    form: Form
    model: str
    made_by: str
    detector: str = ""


def detector_key(folder: Path) -> str:
    """A key of the network that a detector's folder holds, wherever it lies; empty where there is none."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES and path.name not in ONLY_TRAINING]
    return content_key({}, files) if files else ""


def check_detector(gallery: Path, detector: Path, *, made: Path | None = None) -> None:
    """See that a gallery's regions are those of a network; nothing is checked where that is not known.

    Args:
        detector: folder of the network.
        made: folder of the one that found the regions of a gallery without embed.json, if that is known.

    Raises:
        UserError: they are of another network, or embed.json is damaged.
    """
    if (gallery / FILE).is_file():
        expected = read_record(gallery / FILE, Embedded).detector
    else:
        expected = detector_key(made) if made else ""
    if expected and (found := detector_key(detector)) not in ("", expected):
        raise UserError(
            f"{gallery}: its regions were found by another detector ({expected}) than {detector} holds ({found}); "
            "make a gallery by this one (crossmodal embed), and name it"
        )
