"""Models that transformers reads from untrusted folders and hubs: no code of theirs runs, configs are checked first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from crossmodal.errors import UserError, disk_trouble, first_line
from crossmodal.files.checked_json import as_record, read_json
from crossmodal.files.weights import check_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Of every from_pretrained: without it, an auto_map in config.json makes transformers ask on the terminal whether to run
# the folder's own Python.
CAUTIOUS: dict[str, Any] = {"trust_remote_code": False}
# Encoders of BERT's kind that have no pooler, and so no argument to leave it out.
WITHOUT_POOLER = ("convbert", "deberta", "deberta-v2", "distilbert", "electra", "roformer")
_SHOWN = 200  # characters of a library's reason

Size = Annotated[int, Field(ge=1, le=1 << 24)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Encoder(BaseModel):
    """Limits of an encoder's config.json; other keys are for transformers to check."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    model_type: str
    vocab_size: Size = 1
    hidden_size: Size = 1
    dim: Size = 1  # DistilBERT's names
    hidden_dim: Size = 1
    n_heads: Annotated[int, Field(ge=1, le=1 << 10)] = 1
    n_layers: Annotated[int, Field(ge=0, le=1 << 10)] = 1
    embedding_size: Size = 1
    projection_dim: Size = 1
    intermediate_size: Size = 1
    max_position_embeddings: Size = 1
    type_vocab_size: Annotated[int, Field(ge=0, le=1 << 24)] = 1  # DeBERTa: 0
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
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


@contextmanager
def reading(name: str, what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever transformers, tokenizers and safetensors raise into one line, "NAME: WHAT (reason)ADVICE".

    Raises:
        UserError: anything was raised but the error of a full or read-only disk.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the tokenizers raise a plain Exception, or a Rust panic, which is not one
        if isinstance(error, OSError) and disk_trouble(error):
            raise
        reason = first_line(error)[:_SHOWN]
        if "ignore_mismatched_sizes" in str(error):  # transformers says which in a report that it only logs
            reason = "the weights are of other shapes than config.json says"
        raise UserError(f"{name}: {what} ({reason}){advice}") from None


def check_config(content: Any, name: str) -> None:
    """Check the sizes in the config of an encoder, or of both halves of a dual one.

    Raises:
        UserError: names the key.
    """
    whole = as_record(content, _Encoder, name)
    for part in ("text_config", "vision_config"):
        if (inner := getattr(whole, part)) is not None:
            as_record({"model_type": "", **inner}, _Encoder, f"{name}: {part}")


def check_config_file(folder: Path, stage: str = "") -> None:
    """``check_config`` of a folder's config.json, which ``stage`` writes."""
    path = folder / "config.json"
    check_config(read_json(path, dict, advice=stage and f"run the {stage} stage first"), str(path))


@contextmanager
def obtaining(source: str, setting: str, files: str, otherwise: str = "") -> Iterator[None]:
    """Check a source, and name the setting that holds it in whatever is wrong with the model read from it.

    Args:
        source: a hub's name, or a folder.
        setting: key and value. files: that a folder needs besides its config and weights.

    Raises:
        UserError: see ``reading``; or no config, wrong sizes in it, or weights that are no finite floats.
    """
    be_quiet()
    advice = f"; give a folder with config.json, model.safetensors{files}{otherwise}"
    with reading(setting, "neither a readable folder nor available from the hub", advice):
        if Path(source).is_dir():
            check_config_file(Path(source))
            check_folder(Path(source))
        else:
            from transformers import PretrainedConfig

            check_config(PretrainedConfig.get_config_dict(source)[0], setting)
        yield


@contextmanager
def leaving_out_pooler(model_type: str, setting: str) -> Iterator[dict[str, bool]]:
    """Arguments by which ``AutoModel`` makes an encoder of BERT's kind without its pooler.

    Args:
        setting: key and value, for the message.

    Raises:
        UserError: a model of another kind, such as a decoder, refuses them.
    """
    try:
        yield {} if model_type in WITHOUT_POOLER else {"add_pooling_layer": False}
    except TypeError as error:
        if "add_pooling_layer" not in str(error):
            raise
        raise UserError(
            f"{setting}: model type {model_type!r} is no encoder of BERT's kind; use one such as bert, roberta, "
            "distilbert or electra"
        ) from None


def load_encoder(folder: Path) -> PreTrainedModel:
    """``load_model`` of the bert stage's folder, without pooler."""
    from transformers import AutoConfig, AutoModel

    kind = AutoConfig.from_pretrained(folder, local_files_only=True, **CAUTIOUS).model_type
    with leaving_out_pooler(kind, str(folder)) as options:
        return load_model(AutoModel, folder, **options)


def save_pretrained(folder: Path, model: PreTrainedModel, preparer: Any) -> None:
    """Write a model, and the tokenizer or image processor that prepares its input, for ``reading_folder``."""
    model.config._name_or_path = ""
    preparer.save_pretrained(folder)
    model.save_pretrained(folder)


@contextmanager
def reading_folder(folder: Path, stage: str, what: str) -> Iterator[None]:
    """As ``obtaining``, of a folder that a stage wrote; errors are "FOLDER: WHAT (reason)"."""
    be_quiet()
    with reading(str(folder), what):
        check_config_file(folder, stage)
        check_folder(folder)
        yield


def load_model(kind: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """A model of a class of transformers from a folder, in float32 and evaluation mode, every weight from the file.

    Raises:
        UserError: a weight is missing; within ``reading`` also anything that transformers raises.
    """
    name = str(folder / "model.safetensors")
    return load_whole(kind, str(folder), name, local_files_only=True, dtype=torch.float32, **options).eval()


def load_whole(kind: Any, source: str, name: str, **options: Any) -> PreTrainedModel:
    """A model of a class of transformers from a folder or a hub, every weight from safetensors.

    Args:
        source: a hub's name, or a folder. name: of the weights, for the message.

    Raises:
        UserError: a weight is missing; within ``reading`` also anything that transformers raises.
    """
    model, told = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options, **CAUTIOUS)
    if missing := told["missing_keys"]:  # transformers would draw them at random
        others = f" and {len(missing) - 1} other weights" if len(missing) > 1 else ""
        raise UserError(f"{name}: lacks {min(missing)!r}{others}")
    return model
