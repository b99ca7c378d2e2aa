"""The caption encoders by their name in params.yaml. A new one is a class in a file of its own and a line here."""

from __future__ import annotations

from pathlib import Path
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


def uses_token_table(params: Params) -> bool:
    """Whether words are dropped by what is known of each token (``train.word_dropout_kind: words``)."""
    return params.train.word_dropout_kind == "words" and bool(params.train.word_dropout)


def training_files(params: Params, bert: Path, captions: Path) -> list[Path]:
    """Files of the bert and captions stages that the train stage reads besides the caption store."""
    return ENCODERS[params.captions.encoder].training_files(bert, captions, table=uses_token_table(params))
