"""Models that transformers reads from folders and hubs, whose makers nobody here knows.

Nothing of a folder is run (``CAUTIOUS``), its config is checked before a network is made from it, and whatever is wrong
with a file is said in one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from crossmodal.errors import UserError, disk_trouble, first_line
from crossmodal.files.checked_json import read_json
from crossmodal.files.checked_yaml import first_problem
from crossmodal.files.weights import check_folder

# Of every from_pretrained: without it, an auto_map in config.json makes transformers ask on the terminal whether to run
# the folder's own Python.
CAUTIOUS: dict[str, Any] = {"trust_remote_code": False}
_SHOWN = 200  # characters of a library's reason

Size = Annotated[int, Field(ge=1, le=1 << 24)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Encoder(BaseModel):
    """What an encoder's config.json may say where it says it; other keys are transformers' own business."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    model_type: str
    vocab_size: Size = 1
    hidden_size: Size = 1
    embedding_size: Size = 1
    projection_dim: Size = 1
    intermediate_size: Size = 1
    max_position_embeddings: Size = 1
    type_vocab_size: Size = 1
    num_attention_heads: Annotated[int, Field(ge=1, le=1 << 10)] = 1
    num_hidden_layers: Annotated[int, Field(ge=0, le=1 << 10)] = 1
    image_size: Annotated[int, Field(ge=1, le=1 << 14)] = 1
    patch_size: Annotated[int, Field(ge=1, le=1 << 14)] = 1
    num_channels: Literal[1, 3, 4] = 3
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    hidden_dropout_prob: Share = 0
    attention_probs_dropout_prob: Share = 0
    text_config: dict[str, Any] | None = None
    vision_config: dict[str, Any] | None = None


def be_quiet() -> None:
    """No bars and no advice of transformers."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


@contextmanager
def reading(name: str, what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever transformers, tokenizers and safetensors raise into one line, "NAME: WHAT (reason)ADVICE".

    Raises:
        UserError: anything was raised, but for a disk that takes no more.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except (
        BaseException
    ) as error:  # of any kind: the tokenizers' own are a plain Exception and a Rust panic, which is none
        if isinstance(error, OSError) and disk_trouble(error):
            raise
        raise UserError(f"{name}: {what} ({_reason(error)}){advice}") from None


def check_config(content: Any, name: str) -> None:
    """See that the sizes in a config are sizes, of an encoder as of both halves of a dual one.

    Raises:
        UserError: names the key.
    """
    try:
        whole = _Encoder.model_validate(content)
        for part, inner in (("text_config", whole.text_config), ("vision_config", whole.vision_config)):
            if inner is not None:
                name = f"{name}: {part}"
                _Encoder.model_validate({"model_type": "", **inner})
    except ValidationError as error:
        raise UserError(f"{name}: {first_problem(error)}") from None


def check_source(source: str | Path, name: str) -> None:
    """Look at a folder, or at the config of a hub's model, before a network is made from it.

    Raises:
        UserError: no config, sizes that are none, or weights that are no finite floats.
    """
    folder = Path(source)
    if folder.is_dir():
        check_config(read_json(folder / "config.json", dict), str(folder / "config.json"))
        check_folder(folder)
    else:
        check_config(PretrainedConfig.get_config_dict(source)[0], name)


@contextmanager
def obtaining(source: str, setting: str, files: str, otherwise: str = "") -> Iterator[None]:
    """Check a source, and name the setting that holds it in whatever is wrong with the model read from it.

    Args:
        source: a hub's name, or a folder.
        setting: key and value. files: that a folder needs besides its config and weights.

    Raises:
        UserError: see ``reading`` and ``check_source``.
    """
    be_quiet()
    advice = f"; give a folder with config.json, model.safetensors{files}{otherwise}"
    with reading(setting, "neither a readable folder nor available from the hub", advice):
        check_source(source, setting)
        yield


def save_pretrained(folder: Path, model: PreTrainedModel, preparer: Any) -> None:
    """Write a model, and the tokenizer or image processor that prepares its input, for ``reading_folder``."""
    model.config._name_or_path = ""
    preparer.save_pretrained(folder)
    model.save_pretrained(folder)


@contextmanager
def reading_folder(folder: Path, stage: str, what: str) -> Iterator[None]:
    """Check a folder that a stage wrote; whatever is wrong with the model read from it is "FOLDER: WHAT (reason)".

    Raises:
        UserError: it is missing, or see ``reading`` and ``check_source``.
    """
    be_quiet()
    require_config(folder, stage)
    with reading(str(folder), what):
        check_source(folder, str(folder))
        yield


def require_config(folder: Path, stage: str) -> None:
    """Raise a UserError where the stage's folder has no config.json."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder / 'config.json'}: not found; run the {stage} stage first")


def load_model(kind: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """A model of a class of transformers from a folder, in float32 and evaluation mode, every weight from the file.

    Raises:
        UserError: a weight is missing; within ``reading`` also anything that transformers raises.
    """
    model, told = kind.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        **options,
        **CAUTIOUS,
    )
    if told["missing_keys"]:  # transformers would draw them at random
        raise UserError(f"{folder / 'model.safetensors'}: lacks {min(told['missing_keys'])!r}")
    return model.eval()


def _reason(error: BaseException) -> str:
    """A line of a library's reason; transformers says what of a shape in a report that it only logs."""
    text = first_line(error)
    if "ignore_mismatched_sizes" in text:
        return "the weights are of other shapes than config.json says"
    return text[:_SHOWN]
