"""The detector folder of the bottom-up attention detector: model.safetensors and config.json with the names.

Both backends, ``bottomup`` and ``detectron2``, read it; whatever file the weights came in is not needed any more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.regions.bottomup.network import Architecture


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
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")


def read_folder(folder: Path) -> DetectorFolder:
    """Read what ``write_folder`` wrote.

    Raises:
        UserError: the folder is missing, damaged, or holds another kind of network.
    """
    path, weights_path = folder / "config.json", folder / "model.safetensors"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("backend") != "bottomup":
            raise UserError(f"{path}: holds no bottom-up attention detector; run the detector stage with this backend")
        weights = load_file(weights_path)
        architecture = Architecture(**config["architecture"])
        return DetectorFolder(architecture, weights, list(config["classes"]), list(config["attributes"]))
    except FileNotFoundError:
        missing = weights_path if path.exists() else path
        raise UserError(f"{missing}: not found; run the detector stage first") from None
    except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: not a readable bottom-up attention detector ({reason})") from None
