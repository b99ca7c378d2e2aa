"""A published dual encoder, CLIP or SigLIP, split into the half that embeds images and the half that embeds texts.

Each is saved with its image processor or tokenizer as a folder that transformers reads back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from crossmodal.errors import UserError
from crossmodal.files.hub_models import CAUTIOUS, load_model, load_whole, obtaining, reading_folder, save_pretrained
from crossmodal.runtime import hub_name_or_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

Half = Literal["vision", "text"]

# Classes of transformers.
_CLASSES: dict[str, dict[Half, str]] = {
    "clip": {"vision": "CLIPVisionModelWithProjection", "text": "CLIPTextModelWithProjection"},
    "siglip": {"vision": "SiglipVisionModel", "text": "SiglipTextModel"},
}
_PREPARERS = {"vision": "AutoImageProcessor", "text": "AutoTokenizer"}


def fetch_half(source: str, half: Half, folder: Path) -> None:
    """Copy one half of a dual encoder, in float32, from a hub name or folder.

    Args:
        source: hub name such as openai/clip-vit-base-patch32, or a folder that transformers reads.
        folder: written by ``save_pretrained``; exists.

    Raises:
        UserError: unknown name, no way to the hub, unreadable folder, a model of another kind, or a weight that is not
            there.
    """
    import transformers

    found, setting = hub_name_or_path(source), f"clip.source {source!r}"
    with obtaining(found, setting, ", preprocessor_config.json and tokenizer files"):
        kind = transformers.AutoConfig.from_pretrained(found, **CAUTIOUS).model_type
        if kind not in _CLASSES:
            raise UserError(f"{setting}: holds a {kind} model, expected {' or '.join(_CLASSES)}")
        preparer = getattr(transformers, _PREPARERS[half]).from_pretrained(found, **CAUTIOUS)
        network = getattr(transformers, _CLASSES[kind][half])
        model = load_whole(network, found, setting, dtype=torch.float32)
    save_pretrained(folder, model, preparer)


def load_half(folder: Path, half: Half, stage: str) -> tuple[PreTrainedModel, Any]:
    """Read what ``fetch_half`` wrote: the model in evaluation mode, and its image processor or tokenizer.

    Args:
        stage: that writes the folder, for messages.

    Raises:
        UserError: the folder is missing or incomplete, or holds something else.
    """
    import transformers

    with reading_folder(folder, stage, f"not a readable {half} half of a dual encoder"):
        kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **CAUTIOUS).model_type
        classes = {f"{name}_{half}_model": halves[half] for name, halves in _CLASSES.items()}
        if kind not in classes:
            raise UserError(f"{folder / 'config.json'}: holds a {kind}, expected {' or '.join(classes)}")
        preparer = getattr(transformers, _PREPARERS[half]).from_pretrained(folder, local_files_only=True, **CAUTIOUS)
        return load_model(getattr(transformers, classes[kind]), folder), preparer


def embedding_size(model: PreTrainedModel) -> int:
    """Length of the vectors that a half gives."""
    names = ("projection_dim", "projection_size", "hidden_size")  # CLIP, SigLIP's texts, SigLIP's images
    return next(getattr(model.config, name) for name in names if hasattr(model.config, name))


def embedding(output: ModelOutput) -> torch.Tensor:
    """The embeddings in what a half gave: (B, E), not normalised."""
    return next(output[name] for name in ("image_embeds", "text_embeds", "pooler_output") if name in output)
