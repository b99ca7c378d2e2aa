"""A trained matcher on disk: model.safetensors and config.json, no pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from safetensors.torch import save_file

from crossmodal.errors import UserError, first_line
from crossmodal.files.checked_json import Record, as_record, read_record, write_json
from crossmodal.files.checked_yaml import Section, first_problem
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.grid_backbone import BackboneSettings, build_image
from crossmodal.models.registry import MODELS, build_model
from crossmodal.models.text import build_text, check_text
from crossmodal.settings.features import EncoderName
from crossmodal.settings.params import Params

_MOST = 1 << 24  # of a size in config.json
_FEW = 16  # layers that no number of tensors is held against: some models have none


@dataclass(frozen=True)
class MatcherConfig:
    """Everything needed to rebuild the model.

    ``key``: by which the tracking server finds the run that trained it. ``encoder``: captions.encoder; ``text``:
    settings of build_text; ``image``: settings of grid_backbone.build_image.
    """

    model: str
    settings: dict[str, Any]
    sizes: InputSizes
    key: str
    encoder: str
    text: dict[str, Any]
    image: dict[str, Any] = field(default_factory=dict)

    @property
    def stored_regions(self) -> int:
        """Values of a row of the region store that the matcher reads."""
        return self.image["cut"]["channels"] if self.image else self.sizes.regions


def save_matcher(folder: Path, model: Matcher, config: MatcherConfig) -> None:
    """Write both files; ``folder`` exists."""
    save_file(unshared(model), folder / "model.safetensors")
    write_json(folder / "config.json", asdict(config))


def unshared(model: Matcher) -> dict[str, torch.Tensor]:
    """Every tensor of a model once, under the first of its names in the alphabet; ``load_matcher`` finds the others.

    safetensors' own ``save_model`` notes the other names too, in an order that is another in every process.
    """
    weights = {}
    for name, value in sorted(model.state_dict().items()):
        weights.setdefault(value.data_ptr() or name, (name, value.contiguous()))
    return dict(weights.values())


class _Sizes(Record):
    regions: Annotated[int, Field(ge=1, le=_MOST)]
    words: Annotated[int, Field(ge=1, le=_MOST)]


class _Config(Record):
    """config.json of a matcher."""

    model: str
    settings: dict[str, Any]
    sizes: _Sizes
    key: str
    encoder: EncoderName
    text: dict[str, Any]
    image: dict[str, Any] = Field(default_factory=dict)


def read_config(folder: Path) -> MatcherConfig:
    """Read ``config.json`` of a matcher.

    Raises:
        UserError: missing, or not a matcher's config.
    """
    path = folder / "config.json"
    record = read_record(path, _Config, advice="run the train stage first")
    config = MatcherConfig(**{**record.model_dump(), "sizes": InputSizes(**record.sizes.model_dump())})
    _section(config, path)
    check_text(config.encoder, config.text, f"{path}: text")
    if config.image:
        as_record(config.image, BackboneSettings, f"{path}: image")
    return config


def load_matcher(folder: Path) -> tuple[Matcher, MatcherConfig]:
    """Read a matcher in evaluation mode, on the CPU.

    Raises:
        UserError: a file is missing, unreadable, or its weights are those of another model.
    """
    config, path = read_config(folder), folder / "model.safetensors"
    weights = read_tensors(path)
    model = build_checked(config, weights, folder / "config.json", path)
    model.load_state_dict(weights, strict=False)
    return model.eval(), config


def build_checked(
    config: MatcherConfig, weights: Mapping[str, torch.Tensor], path: Path, weights_path: Path
) -> Matcher:
    """The model of a config, not yet with its weights; ``path`` and ``weights_path`` are for messages.

    It is built on the meta device first and compared with the weights: a config that claims sizes gets no memory for
    them, and a number of layers beyond the number of tensors no time.

    Raises:
        UserError: no model can be built so, or the weights are those of another.
    """
    section = _section(config, path)
    depths = {**config.settings, **config.text.get("config", {}), **config.image.get("kwargs", {})}
    for key, value in depths.items():
        if key.endswith(("layers", "steps", "depth")) and isinstance(value, int) and value > max(len(weights), _FEW):
            raise UserError(f"{path}: {key} is {value}, {weights_path} holds {len(weights)} tensors")
    make_text, make_image = partial(build_text, config.encoder, config.text), partial(build_image, config.image)
    try:
        with torch.device("meta"):
            skeleton = build_model(config.model, section, config.sizes, make_text, make_image)
            for member in skeleton.members() if config.image else ():
                member.image.check_cut()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, KeyError, ArithmeticError) as error:
        raise UserError(f"{path}: no {config.model} model can be built so ({first_line(error)})") from None
    check_tensors(weights, _named_once(skeleton, weights), str(weights_path), f"this {config.model} model")
    return build_model(config.model, section, config.sizes, make_text, make_image)


def _named_once(model: Matcher, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of a model without the further names of tensors that the file holds by one of their names."""
    expected = model.state_dict()
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    held = {id(tensor) for name, tensor in named if name in weights}
    further = {name for name, tensor in named if name not in weights and id(tensor) in held}
    return {name: value for name, value in expected.items() if name not in further}


def _section(config: MatcherConfig, path: Path) -> Section:
    """The checked settings of a config."""
    if config.model not in MODELS:
        raise UserError(f"{path}: model {config.model!r} is not one of {', '.join(MODELS)}")
    try:
        return Params.model_fields[config.model].annotation.model_validate(config.settings)
    except ValidationError as error:
        raise UserError(f"{path}: settings: {first_problem(error)}") from None
