"""State dicts of the published implementations, renamed to this project's."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from crossmodal.errors import UserError

# mesnico/TERN and mesnico/TERAN: published prefix -> ours
_TERN = {
    "img_txt_enc.img_enc.pos_encoding_image.map.": "positions.map.",
    "img_txt_enc.img_enc.transformer_encoder.": "visual_encoder.",
    "img_txt_enc.img_proj.": "image_map.",
    "img_txt_enc.txt_enc.transformer_encoder.": "text_encoder.",
    "img_txt_enc.cap_proj.": "caption_map.",
    "img_txt_enc.transformer_encoder_1.": "encoder.",
    "img_txt_enc.transformer_encoder_2.": "image_encoder.",
}
# Maps of the published encoders whose outputs the published models never use, and BERT, which is a stage here.
_TERN_UNUSED = ("img_txt_enc.txt_enc.map.", "img_txt_enc.img_enc.fc.", "img_txt_enc.txt_enc.bert_model.")


def tern_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """TERN's or TERAN's published state dict under the names of ``TernMatcher``.

    A checkpoint without ``transformer_encoder_2`` shares the second encoder: its weights serve both names.

    Raises:
        UserError: an entry that neither implementation has.
    """
    state = _rename(published, _TERN, _TERN_UNUSED)
    if not any(name.startswith("image_encoder.") for name in state):
        encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
        state |= {f"image_{name}": value for name, value in encoder.items()}
    return state


def _rename(
    published: Mapping[str, torch.Tensor], prefixes: Mapping[str, str], unused: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in published.items():
        if name.startswith(unused):
            continue
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            raise UserError(f"checkpoint entry {name!r}: not part of the published model")
        state[prefixes[prefix] + name.removeprefix(prefix)] = value
    return state
