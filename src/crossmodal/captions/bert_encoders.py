"""Captions by the bert stage's tokenizer: features of its network, or ids for a copy of it that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch.nn.utils.rnn import pad_sequence

from crossmodal.captions.base import FEATURES, IDS, CaptionEncoder, Span, TextSettings
from crossmodal.captions.bert import load_bert, read_bert_config
from crossmodal.captions.plain_bert import PlainBert, PlainConfig, PlainTokenizer, read_plain_bert
from crossmodal.errors import UserError, first_line
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore
from crossmodal.runtime import pick_device
from crossmodal.settings.params import Params

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")  # positions count from pad_token_id + 1
_SPACES = ("Ġ", "▁")  # of byte-level BPE and SentencePiece


class _Bert(CaptionEncoder):
    """Token ids, [CLS] and [SEP] among them where the tokenizer has such."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | PlainTokenizer,
        config: PreTrainedConfig | PlainConfig,
        max_tokens: int,
    ) -> None:
        super().__init__(max_tokens)
        self.tokenizer, self.config = tokenizer, config

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return token_ids(texts, self.tokenizer, self.config, self.max_tokens)

    @classmethod
    def positions(cls, bert: Path, captions: Path) -> Callable[[str], tuple[list[int], list[Span]]]:
        path = bert / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{path}: not found; run the bert stage first")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a plain Exception
            raise UserError(f"{path}: not a readable tokenizer ({error})") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()

        def positions(text: str) -> tuple[list[int], list[Span]]:
            encoded = tokenizer.encode(text)
            return encoded.ids, encoded.offsets

        return positions

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable:
        return table_of_tokenizer(load_bert(bert)[1])

    @classmethod
    def training_files(cls, bert: Path, captions: Path, *, table: bool) -> list[Path]:
        return _files(bert) if table else []


def _files(bert: Path) -> list[Path]:
    return [path for path in sorted(bert.glob("*")) if path.is_file()]


def table_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> TokenTable:
    """The table of a BERT's tokenizer, or of another that puts a token at either end of a caption.

    WordPiece marks the pieces that continue a word (##); byte-level BPE and SentencePiece mark those that begin one, so
    that a punctuation mark without a space in front of it belongs to the word before. Without such marks every token is
    a word.
    """
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)  # a slow tokenizer has none
    prefix = getattr(model, "continuing_subword_prefix", None) or "##"
    if not isinstance(model, models.WordPiece) and any(token.startswith(_SPACES) for token in tokens):
        continues = [not token.startswith(_SPACES) for token in tokens]
    else:
        continues = [token.startswith(prefix) for token in tokens]
    table = np.array(continues)
    table[tokenizer.all_special_ids] = False
    return TokenTable(table, tokenizer.mask_token_id, ends=True)


def token_ids(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | PlainTokenizer,
    config: PreTrainedConfig | PlainConfig,
    max_tokens: int,
) -> list[list[int]]:
    """Token ids of each text, at most ``max_tokens``, the tokenizer's own around them where it has such.

    Raises:
        UserError: the tokenizer cannot read a text or makes no token of it, or the model has no such token or position.
    """
    try:
        ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    except Exception as error:  # what the tokenizers library raises is a plain Exception
        raise UserError(f"models/bert/tokenizer.json: cannot read the captions ({first_line(error)})") from None
    positions = getattr(config, "max_position_embeddings", None) or max_tokens
    if config.model_type in AFTER_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    for text, row in zip(texts, ids, strict=True):
        if not row:
            raise UserError(f"models/bert/tokenizer.json: makes no token of {text[:100]!r}")
        if len(row) > positions:
            raise UserError(f"captions.max_tokens {max_tokens}: models/bert takes {positions} tokens at most")
        if max(row) >= config.vocab_size:
            raise UserError(
                f"models/bert: its tokenizer has token {max(row)}, its config.json a vocab_size of "
                f"{config.vocab_size}; they are not of one model"
            )
    return ids


class BertFeatures(_Bert):
    """``captions.encoder`` bert: ids, and for each the output of the network's last layer."""

    def __init__(
        self, model: PreTrainedModel | PlainBert, tokenizer: PreTrainedTokenizerBase | PlainTokenizer, max_tokens: int
    ) -> None:
        super().__init__(tokenizer, model.config, max_tokens)
        self.device = pick_device()
        self.model = model.to(self.device)
        self.size = model.config.hidden_size
        self.arrays = {FEATURES: ("float16", (self.size,)), IDS: ("int32", ())}

    @classmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        return cls(*(read_plain_bert(bert) or load_bert(bert)), max_tokens)

    @property
    def metadata(self) -> dict[str, Any]:
        return {"hidden_size": self.size, "layers": self.config.num_hidden_layers, **super().metadata}

    @torch.inference_mode()
    def features(self, ids: Sequence[list[int]], batch_size: int) -> list[np.ndarray]:
        """See ``CaptionEncoder``; captions of similar length share a batch, padding is not kept."""
        padding = self.config.pad_token_id or 0
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        features: list[np.ndarray] = [np.empty(0)] * len(ids)
        for first in range(0, len(ids), batch_size):
            rows = by_length[first : first + batch_size]
            padded = pad_sequence([torch.tensor(ids[row]) for row in rows], batch_first=True, padding_value=padding)
            mask = torch.arange(padded.shape[1]) < torch.tensor([len(ids[row]) for row in rows])[:, None]
            output = self.model(padded.to(self.device), attention_mask=mask.long().to(self.device)).last_hidden_state
            for index, row in enumerate(rows):
                features[row] = output[index, : len(ids[row])].cpu().numpy().astype(np.float16)
        return features


class BertIds(_Bert):
    """``captions.encoder`` bert_finetune: ids alone; the matcher trains a copy of the network."""

    @classmethod
    def load(cls, bert: Path, vocabulary: Path, max_tokens: int) -> Self:
        model, tokenizer = load_bert(bert)
        return cls(tokenizer, model.config, max_tokens)

    @classmethod
    def token_table(cls, bert: Path, captions: Path) -> TokenTable:
        table = super().token_table(bert, captions)
        if table.mask is None:
            raise UserError(f"{bert}: no mask token, which train.word_dropout_kind words needs; use tokens")
        return table

    @classmethod
    def training_files(cls, bert: Path, captions: Path, *, table: bool) -> list[Path]:
        return _files(bert)  # the weights that the training starts from

    @classmethod
    def text_settings(cls, params: Params, bert: Path, store: FeatureStore, table: TokenTable | None) -> TextSettings:
        config = read_bert_config(bert)
        return TextSettings({"config": config.to_diff_dict()}, config.hidden_size, params.bert_finetune.lr_factor)
