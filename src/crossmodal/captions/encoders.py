"""The caption encoders by their name in params.yaml. A new one is a class in a file of its own and a line here."""

from __future__ import annotations

from typing import Any

from crossmodal.captions.base import CaptionEncoder
from crossmodal.captions.bert_encoders import BertFeatures, BertIds
from crossmodal.captions.bigru import WordIds
from crossmodal.captions.clip import ClipText
from crossmodal.settings.params import Params

ENCODERS: dict[str, type[CaptionEncoder]] = {
    "bert": BertFeatures,
    "bert_finetune": BertIds,
    "bigru": WordIds,
    "clip": ClipText,
}


def caption_reading(params: Params) -> dict[str, Any]:
    """Settings that a caption's tokens depend on, besides the encoder in models/bert, by dotted key.

    Kept with a gallery, so that queries are encoded as its captions were; see ``derived.with_reading``.
    """
    return ENCODERS[params.captions.encoder].reading(params.captions.max_tokens)
