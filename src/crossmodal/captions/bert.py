"""BERT of a hub or a folder, copied and read back: a folder of safetensors, config.json and tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crossmodal.errors import UserError
from crossmodal.files.hub_models import (
    CAUTIOUS,
    check_config_file,
    leaving_out_pooler,
    load_encoder,
    load_whole,
    obtaining,
    reading,
    reading_folder,
    save_pretrained,
)
from crossmodal.runtime import hub_name_or_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

UNREADABLE = "not a readable BERT folder"


def fetch_bert(source: str, layers: int, folder: Path) -> None:
    """Copy a BERT, or one of its kind (RoBERTa, DistilBERT), from a hub or folder, without pooler and task heads.

    Args:
        source: hub name such as bert-base-uncased, or a folder that transformers reads.
        layers: keep the first so many layers, 0 all. TERN takes the output of BERT's sixth.
        folder: written by ``save_pretrained``; exists.

    Raises:
        UserError: unknown name, no way to the hub, unreadable folder, a model of another kind, a weight that is not
            there, or fewer layers than asked for.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    found, setting = hub_name_or_path(source), f"bert.source {source!r}"
    with obtaining(found, setting, " and tokenizer files", ", or use fit"):
        tokenizer = AutoTokenizer.from_pretrained(found, **CAUTIOUS)
        kind = AutoConfig.from_pretrained(found, **CAUTIOUS).model_type
        with leaving_out_pooler(kind, setting) as options:
            model = load_whole(AutoModel, found, setting, **options)
    if layers:
        if layers > model.config.num_hidden_layers:
            raise UserError(f"bert.layers: {layers} asked for, {source!r} has {model.config.num_hidden_layers} layers")
        _cut(model, layers, source)
    save_pretrained(folder, model, tokenizer)


def load_bert(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The bert stage's encoder in evaluation mode, without pooler, and its tokenizer.

    Raises:
        UserError: the folder is missing or incomplete.
    """
    from transformers import AutoTokenizer

    with reading_folder(folder, "bert", UNREADABLE):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **CAUTIOUS)
        model = load_encoder(folder)
        with torch.inference_mode():  # some of what is wrong in a config shows only here; a snowman is no known word
            ids = tokenizer(["a \u2603"], truncation=True, max_length=8)["input_ids"]
            finite = model(torch.tensor(ids if ids[0] else [[0]])).last_hidden_state.isfinite().all()
        if not finite:
            raise UserError(f"{folder}: the network gives values that are not finite")
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # a folder may have it otherwise
    return model, tokenizer


def _cut(model: PreTrainedModel, layers: int, source: str) -> None:
    """Keep the first layers of an encoder.

    Raises:
        UserError: it is built in another way than BERT.
    """
    config = model.config
    encoder = getattr(model, "transformer" if config.model_type == "distilbert" else "encoder", None)
    if hasattr(encoder, "layer"):
        encoder.layer = encoder.layer[:layers]
    elif not (hasattr(encoder, "albert_layer_groups") and config.num_hidden_groups == 1):  # one layer, run many times
        raise UserError(
            f"bert.layers {layers}: {source!r} ({config.model_type}) has no list of layers to cut; set it to 0"
        )
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers and key != "architectures":
            setattr(config, key, value[:layers])  # a setting of each layer
    config.num_hidden_layers = layers


def read_bert_config(folder: Path) -> PreTrainedConfig:
    """The config of the model that ``load_bert`` gives, without reading its weights.

    Raises:
        UserError: the folder is missing, or its config.json is not a model's.
    """
    from transformers import AutoConfig

    with reading(str(folder), UNREADABLE):
        check_config_file(folder, "bert")
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **CAUTIOUS)
    config.dtype = torch.float32  # as load_bert reads weights, whatever they are stored as
    return config
