"""The detector folder of the bottom-up attention detector: model.safetensors and config.json with the names.

Both backends, ``bottomup`` and ``detectron2``, read it; whatever file the weights came in is not needed any more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, as_record, read_json, write_json
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.regions.bottomup.boxes import DETECTRON2
from crossmodal.regions.bottomup.network import Architecture, BottomUpNetwork


@dataclass(frozen=True)
class DetectorFolder:
    """The weights under detectron2's names; names of classes and attributes, empty where nobody gave them."""

    architecture: Architecture
    weights: dict[str, Tensor]
    classes: list[str]
    attributes: list[str]


def write_folder(folder: Path, detector: DetectorFolder, source: dict[str, str]) -> None:
    """Write a detector into ``folder``, which exists. ``source`` is kept in config.json: where the weights are from."""
    config = {
        "backend": "bottomup",
        "source": source,
        "architecture": asdict(detector.architecture),
        "classes": detector.classes,
        "attributes": detector.attributes,
    }
    save_file(detector.weights, folder / "model.safetensors")
    write_json(folder / "config.json", config, ensure_ascii=False)


class _Architecture(Record):
    depth: Literal[50, 101, 152]
    width: Annotated[int, Field(ge=1, le=1 << 12)]
    rpn_channels: Annotated[int, Field(ge=1, le=1 << 16)]
    classes: Annotated[int, Field(ge=1, le=1 << 20)]
    attributes: Annotated[int, Field(ge=0, le=1 << 20)]


class _Config(Record):
    """config.json of a detector folder."""

    backend: Literal["bottomup"]
    source: dict[str, str]
    architecture: _Architecture
    classes: list[str]
    attributes: list[str]


def read_folder(folder: Path) -> DetectorFolder:
    """Read what ``write_folder`` wrote.

    Raises:
        UserError: the folder is missing, damaged, or holds another kind of network.
    """
    path, weights_path = folder / "config.json", folder / "model.safetensors"
    advice = "run the detector stage first"
    content = read_json(path, dict, advice=advice)
    if content.get("backend") != "bottomup":
        raise UserError(f"{path}: holds no bottom-up attention detector; run the detector stage with this backend")
    config = as_record(content, _Config, str(path))
    architecture = Architecture(**config.architecture.model_dump())
    for names, count in ((config.classes, architecture.classes), (config.attributes, architecture.attributes)):
        if names and len(names) != count:
            raise UserError(f"{path}: {len(names)} names of {count} classes or attributes")
    weights = read_tensors(weights_path, advice=advice)
    check_tensors(weights, expected_weights(architecture), str(weights_path), "the detector that config.json describes")
    return DetectorFolder(architecture, weights, config.classes, config.attributes)


def expected_weights(architecture: Architecture) -> dict[str, Tensor]:
    """Names, shapes and types of a detector's weights, without memory for them."""
    with torch.device("meta"):
        return BottomUpNetwork(architecture, DETECTRON2).state_dict()
