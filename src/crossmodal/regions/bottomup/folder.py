"""The detector folder of the bottom-up attention detector, for both backends: model.safetensors and config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, as_record, read_json, write_json
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.regions.bottomup.network import Architecture, expected_weights


class _Config(Record):
    """config.json of a detector folder."""

    backend: Literal["bottomup"] = "bottomup"
    source: dict[str, str]
    architecture: Architecture
    classes: list[str]
    attributes: list[str]


@dataclass(frozen=True)
class DetectorFolder:
    """The weights under detectron2's names; names of classes and attributes, empty if unknown."""

    architecture: Architecture
    weights: dict[str, Tensor]
    classes: list[str]
    attributes: list[str]


def write_folder(folder: Path, detector: DetectorFolder, source: dict[str, str]) -> None:
    """Write a detector into ``folder``, which exists. ``source``: origin of the weights, kept in config.json."""
    names = {"classes": detector.classes, "attributes": detector.attributes}
    config = _Config(source=source, architecture=detector.architecture, **names)
    save_file(detector.weights, folder / "model.safetensors")
    write_json(folder / "config.json", config.model_dump(), ensure_ascii=False)


def read_folder(folder: Path) -> DetectorFolder:
    """Read what ``write_folder`` wrote.

    Raises:
        UserError: the folder is missing, damaged, or holds another kind of network.
    """
    path, advice = folder / "config.json", "run the detector stage first"
    content = read_json(path, dict, advice=advice)
    if content.get("backend") != "bottomup":
        raise UserError(f"{path}: holds no bottom-up attention detector; run the detector stage with this backend")
    config = as_record(content, _Config, str(path))
    architecture = config.architecture
    for names, count in ((config.classes, architecture.classes), (config.attributes, architecture.attributes)):
        if names and len(names) != count:
            raise UserError(f"{path}: {len(names)} names of {count} classes or attributes")
    path = folder / "model.safetensors"
    weights = read_tensors(path, advice=advice)
    check_tensors(weights, expected_weights(architecture), str(path), "the detector that config.json describes")
    return DetectorFolder(architecture, weights, config.classes, config.attributes)
