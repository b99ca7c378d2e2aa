"""A published dual encoder, CLIP or SigLIP, taken in two: the half that embeds images and the half that embeds texts.

Each is kept with what prepares its input (image processor or tokenizer) as a folder that transformers reads back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from transformers.utils import ModelOutput

from crossmodal.errors import UserError
from crossmodal.files.hub_models import CAUTIOUS, be_quiet, check_source, reading
from crossmodal.runtime import hub_name_or_path

Half = Literal["vision", "text"]

_CLASSES: dict[str, dict[Half, type[PreTrainedModel]]] = {
    "clip": {"vision": CLIPVisionModelWithProjection, "text": CLIPTextModelWithProjection},
    "siglip": {"vision": SiglipVisionModel, "text": SiglipTextModel},
}
_PREPARERS = {"vision": AutoImageProcessor, "text": AutoTokenizer}


def obtain_half(source: str, half: Half, folder: Path) -> None:
    """Copy one half of a dual encoder, in float32, from a hub name or folder.

    Args:
        source: hub name such as openai/clip-vit-base-patch32, or a folder that transformers reads.
        folder: written by ``save_pretrained``; exists.

    Raises:
        UserError: unknown name, no way to the hub, unreadable folder, or a model of another kind.
    """
    be_quiet()
    place = hub_name_or_path(source)
    name = f"clip.source {source!r}"
    advice = "; give a folder with config.json, model.safetensors, preprocessor_config.json and tokenizer files"
    with reading(name, "neither a readable folder nor to be had from the hub", advice):
        check_source(place, name)
        kind = AutoConfig.from_pretrained(place, **CAUTIOUS).model_type
        if kind not in _CLASSES:
            raise UserError(f"clip.source {source!r}: holds a {kind} model, expected {' or '.join(_CLASSES)}")
        preparer = _PREPARERS[half].from_pretrained(place, **CAUTIOUS)
        model = _CLASSES[kind][half].from_pretrained(place, dtype=torch.float32, use_safetensors=True, **CAUTIOUS)
    model.config._name_or_path = ""
    preparer.save_pretrained(folder)
    model.save_pretrained(folder)


def load_half(folder: Path, half: Half, stage: str) -> tuple[PreTrainedModel, Any]:
    """What ``obtain_half`` wrote: the model in evaluation mode, and its image processor or tokenizer.

    Args:
        stage: that writes the folder, for messages.

    Raises:
        UserError: the folder is missing or incomplete, or holds something else.
    """
    be_quiet()
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder / 'config.json'}: not found; run the {stage} stage first")
    with reading(str(folder), f"not a readable {half} half of a dual encoder"):
        check_source(folder, str(folder))
        kind = AutoConfig.from_pretrained(folder, local_files_only=True, **CAUTIOUS).model_type
        classes = {f"{name}_{half}_model": halves[half] for name, halves in _CLASSES.items()}
        if kind not in classes:
            raise UserError(f"{folder / 'config.json'}: holds a {kind}, expected {' or '.join(classes)}")
        preparer = _PREPARERS[half].from_pretrained(folder, local_files_only=True, **CAUTIOUS)
        model, told = classes[kind].from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **CAUTIOUS,
        )
        if told["missing_keys"]:  # transformers would draw them at random
            raise UserError(f"{folder / 'model.safetensors'}: lacks {min(told['missing_keys'])!r}")
    return model.eval(), preparer


def embedding_size(model: PreTrainedModel) -> int:
    """Length of the vectors that a half gives."""
    names = ("projection_dim", "projection_size", "hidden_size")  # CLIP, SigLIP's texts, SigLIP's images
    return next(getattr(model.config, name) for name in names if hasattr(model.config, name))


def embedding(output: ModelOutput) -> torch.Tensor:
    """The embeddings in what a half gave: (B, E), not normalised."""
    return next(output[name] for name in ("image_embeds", "text_embeds", "pooler_output") if name in output)
