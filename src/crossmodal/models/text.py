"""Text encoders that are trained with the matcher, from the token ids that the captions stage stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from crossmodal.batch import Words
from crossmodal.files.checked_json import Record, as_record
from crossmodal.files.hub_models import check_config, leaving_out_pooler, load_encoder, reading
from crossmodal.models.base import Stored
from crossmodal.models.blocks import run_rnn

# Encoders whose attention takes a mask (B, 1, L, L) as it is, by transformers' create_bidirectional_mask.
TAKE_READY_MASKS = ("albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "gte")
TAKE_READY_MASKS += ("jina_embeddings_v3", "mobilebert", "nomic_bert", "roberta", "roberta-prelayernorm", "roc_bert")
TAKE_READY_MASKS += ("xlm-roberta", "xlm-roberta-xl")


class BiGru(nn.Module):
    """Word embeddings and a bidirectional GRU whose two directions are averaged, as in SCAN and SGRAF.

    Embeddings start uniform in +-0.1, id 0 is padding. ids (B, L) to features (B, L, hidden).
    """

    def __init__(self, vocabulary: int, embed_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embed_dim)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        self.dropout = nn.Dropout(dropout)
        self.rnn = nn.GRU(embed_dim, hidden, batch_first=True, bidirectional=True)

    def forward(self, words: Words) -> Words:
        embedded = self.dropout(self.embed(words.ids))
        output, _ = run_rnn(self.rnn, embedded, words.lengths())  # tokens have no gaps
        forward, backward = output.chunk(2, dim=-1)
        return replace(words, features=(forward + backward) / 2)


class FineTunedBert(nn.Module):
    """A transformers encoder whose weights are trained on: ids (B, L) to its last layer's output (B, L, H).

    Raises:
        UserError: ``config`` is that of a model that is no encoder of BERT's kind.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import AutoConfig, AutoModel

        super().__init__()
        settings = {key: value for key, value in config.items() if key != "model_type"}
        kind = config["model_type"]
        with leaving_out_pooler(kind, "captions.encoder bert_finetune, bert.source") as options:
            self.bert = AutoModel.from_config(AutoConfig.for_model(kind, **settings), **options)

    def forward(self, words: Words) -> Words:
        features = self.bert(words.ids, attention_mask=self._attention_mask(words)).last_hidden_state
        return replace(words, features=features)

    def _attention_mask(self, words: Words) -> torch.Tensor | None:
        """(B, L), about which the library asks the device; ready for use where it is known and the network takes it."""
        if words.host_mask is None or self.bert.config.model_type not in TAKE_READY_MASKS:
            return words.mask.long()
        return None if words.whole() else words.mask[:, None, None].expand(-1, -1, words.mask.shape[1], -1)


class _BiGruSettings(Record):
    vocabulary: Annotated[int, Field(ge=1, le=1 << 24)]
    embed_dim: Annotated[int, Field(ge=1, le=1 << 24)]
    hidden: Annotated[int, Field(ge=1, le=1 << 24)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class _BertSettings(Record):
    config: dict[str, Any]


TRAINED: dict[str, type[nn.Module]] = {"bigru": BiGru, "bert_finetune": FineTunedBert}  # by captions.encoder
_SETTINGS: dict[str, type[Record]] = {"bigru": _BiGruSettings, "bert_finetune": _BertSettings}


def check_text(encoder: str, settings: dict[str, Any], name: str) -> None:
    """See that ``build_text`` can take settings that come from a file.

    Raises:
        UserError: names the key; ``name`` is that of the file.
    """
    record = as_record(settings, _SETTINGS.get(encoder, Record), name)  # of stored features: no key at all
    if isinstance(record, _BertSettings):
        check_config(record.config, f"{name}.config")


def build_text(encoder: str, settings: dict[str, Any]) -> nn.Module:
    """The text encoder of a matcher.

    Args:
        encoder: ``captions.encoder`` of params.yaml.
        settings: of BiGru, or ``config`` of FineTunedBert; nothing where features are stored.
    """
    return TRAINED.get(encoder, Stored)(**settings)


def load_pretrained(text: nn.Module, folder: Path) -> None:
    """Start a FineTunedBert from the bert stage's weights; other encoders have none to start from.

    Raises:
        UserError: the folder's weights are missing, damaged, or not those of its config.
    """
    if not isinstance(text, FineTunedBert):
        return
    with reading(str(folder), "not a readable BERT folder"):
        text.bert.load_state_dict(load_encoder(folder).state_dict())
