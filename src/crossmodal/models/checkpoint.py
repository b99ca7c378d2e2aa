"""A trained matcher on disk: model.safetensors and config.json, no pickles.

config.json holds the model's name, its settings, the sizes of its inputs, and the key by which the tracking
server finds the run that trained it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.registry import MODELS, build_model
from crossmodal.models.text import build_text
from crossmodal.params import Params, Section


@dataclass(frozen=True)
class MatcherConfig:
    """What is needed to build the model again, and what it was trained on.

    ``encoder``: captions.encoder; ``text``: what models.text.build_text takes beside it.
    """

    model: str
    settings: dict[str, Any]
    sizes: InputSizes
    key: str
    encoder: str
    text: dict[str, Any]


def save_matcher(folder: Path, model: Matcher, config: MatcherConfig) -> None:
    """Write both files; ``folder`` exists."""
    save_file(unshared(model), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def unshared(model: Matcher) -> dict[str, torch.Tensor]:
    """Every tensor of a model once, under the first of its names in the alphabet; ``read_weights`` finds the others.

    safetensors' own ``save_model`` notes the other names too, in an order that is another in every process.
    """
    weights = {}
    for name, value in sorted(model.state_dict().items()):
        weights.setdefault(value.data_ptr() or name, (name, value.contiguous()))
    return dict(weights.values())


def read_config(folder: Path) -> MatcherConfig:
    """Read ``config.json`` of a matcher.

    Raises:
        UserError: missing, or not a matcher's config.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = MatcherConfig(**{**content, "sizes": InputSizes(**content["sizes"])})
        if config.model == "sgraf" and "smooth" in config.settings:  # the former name
            config.settings["lambda_softmax"] = config.settings.pop("smooth")
        _section_type(config.model).model_validate(config.settings)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run the train stage first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a matcher's config ({' '.join(str(error).split())})") from None
    return config


def load_matcher(folder: Path) -> tuple[Matcher, MatcherConfig]:
    """Read a matcher in evaluation mode, on the CPU.

    Raises:
        UserError: a file is missing, unreadable, or its weights are those of another model.
    """
    config = read_config(folder)
    settings = _section_type(config.model).model_validate(config.settings)
    model = build_model(config.model, settings, config.sizes, partial(build_text, config.encoder, config.text))
    read_weights(folder / "model.safetensors", model, config.model)
    return model.eval(), config


def read_weights(path: Path, model: Matcher, name: str) -> None:
    """Load a .safetensors file into a model of the registry.

    Raises:
        UserError: the file is missing or damaged, or holds the weights of another model.
    """
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    expected = model.state_dict()
    shared = {key for key in expected if key not in weights and _alias(key, expected, weights)}
    missing = sorted(set(expected) - set(weights) - shared)
    unknown = sorted(set(weights) - set(expected))
    wrong = [key for key in weights if key in expected and weights[key].shape != expected[key].shape]
    if missing or unknown or wrong:
        problem = (
            f"lacks {missing[0]!r}"
            if missing
            else f"holds unknown {unknown[0]!r}"
            if unknown
            else f"{wrong[0]!r} is {tuple(weights[wrong[0]].shape)}, expected {tuple(expected[wrong[0]].shape)}"
        )
        raise UserError(f"{path}: not the weights of this {name} model: {problem}")
    model.load_state_dict(weights, strict=False)


def _alias(key: str, expected: dict[str, Any], weights: dict[str, Any]) -> bool:
    """Whether a key is another name of a tensor that the file holds (shared modules are saved once)."""
    pointer = expected[key].data_ptr()
    return any(expected[other].data_ptr() == pointer for other in weights if other in expected)


def _section_type(model: str) -> type[Section]:
    if model not in MODELS:
        raise ValueError(f"model {model!r} is not one of {', '.join(MODELS)}")
    return Params.model_fields[model].annotation
