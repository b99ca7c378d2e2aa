"""BERT: obtained from a hub or a folder, or fitted on the training captions; kept as a folder of
safetensors, config.json and tokenizer.json that transformers reads back."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from crossmodal.errors import UserError, first_line
from crossmodal.hub_models import CAUTIOUS, be_quiet, check_source, reading
from crossmodal.runtime import hub_name_or_path

log = logging.getLogger(__name__)


def obtain_bert(source: str, layers: int, folder: Path) -> None:
    """Copy a BERT, or one of its kind such as RoBERTa, from a hub name or folder, without pooler and task heads.

    Args:
        source: hub name such as bert-base-uncased, or a folder that transformers reads.
        layers: keep the first so many layers, 0 all. TERN takes the output of BERT's sixth.
        folder: written by ``save_pretrained``; exists.

    Raises:
        UserError: unknown name, no way to the hub, unreadable folder, a model of another kind, or fewer layers than
            asked for.
    """
    be_quiet()
    place, name = hub_name_or_path(source), f"bert.source {source!r}"
    advice = "; give a folder with config.json, model.safetensors and tokenizer files, or use fit"
    with reading(name, "neither a readable folder nor to be had from the hub", advice):
        check_source(place, name)
        tokenizer = AutoTokenizer.from_pretrained(place, **CAUTIOUS)
        try:
            model = AutoModel.from_pretrained(place, add_pooling_layer=False, use_safetensors=True, **CAUTIOUS)
        except TypeError as error:  # of a model that has no pooler to leave out
            raise UserError(f"{name}: not a BERT ({first_line(error)})") from None
    if layers:
        if layers > model.config.num_hidden_layers:
            raise UserError(f"bert.layers: {layers} asked for, {source!r} has {model.config.num_hidden_layers} layers")
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
    model.config._name_or_path = ""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def load_bert(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The bert stage's encoder in evaluation mode, without pooler, and its tokenizer.

    Raises:
        UserError: the folder is missing or incomplete.
    """
    be_quiet()
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder / 'config.json'}: not found; run the bert stage first")
    with reading(str(folder), "not a readable BERT folder"):
        check_source(folder, str(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **CAUTIOUS)
        model, told = AutoModel.from_pretrained(
            folder,
            add_pooling_layer=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **CAUTIOUS,
        )
        if told["missing_keys"]:  # transformers would draw them at random
            raise UserError(f"{folder / 'model.safetensors'}: lacks {min(told['missing_keys'])!r}")
        model = model.eval()
        with torch.inference_mode():  # some of what is wrong in a config shows only here; a snowman is no known word
            ids = tokenizer(["a \u2603"], truncation=True, max_length=8)["input_ids"]
            finite = model(torch.tensor(ids)).last_hidden_state.isfinite().all()
        if not finite:
            raise UserError(f"{folder}: the network gives values that are not finite")
    return model, tokenizer
