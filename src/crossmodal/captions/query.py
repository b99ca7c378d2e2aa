"""Sentences that are not in the caption store, read as the captions stage would have stored them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from crossmodal.batch import Words
from crossmodal.captions.bert import load_bert, token_ids
from crossmodal.captions.clip import embed_texts
from crossmodal.captions.vocabulary import Vocabulary
from crossmodal.errors import UserError
from crossmodal.limits import check_sentence, shown
from crossmodal.published.dual_encoder import embedding_size, load_half
from crossmodal.runtime import pick_device


class SentenceReader:
    """Token features or ids of single sentences.

    Args:
        encoder: ``captions.encoder`` that a matcher was made for.
        bert: folder of the bert stage. vocabulary: of a BiGRU, ``vocabulary.json``.
        max_tokens: ``captions.max_tokens``.

    Raises:
        UserError: the folder or the file is missing or is something else.
    """

    def __init__(self, encoder: str, bert: Path, vocabulary: Path, max_tokens: int) -> None:
        self.encoder, self.max_tokens, self.device = encoder, max_tokens, pick_device()
        self.feature_dim: int | None = None  # of token features, where a matcher takes them and not ids
        if encoder == "bigru":
            self.vocabulary = Vocabulary.load(vocabulary)
        elif encoder == "clip":
            self.model, self.tokenizer = load_half(bert, "text", "bert")
        else:
            self.model, self.tokenizer = load_bert(bert)
        if encoder in ("bert", "clip"):
            self.model = self.model.to(self.device)
            self.feature_dim = embedding_size(self.model) if encoder == "clip" else self.model.config.hidden_size
        # A tokenizer keeps the truncation and padding of its last call. Those of a first sentence are those of every
        # later one, so that no call changes them: several threads may share the reader.
        if encoder != "bigru":
            self("a first sentence")

    @torch.inference_mode()
    def __call__(self, sentence: str) -> Words:
        """One sentence: features (1, L, H) rounded to float16 as stored ones are, or ids (1, L).

        Raises:
            UserError: see ``check_text``.
        """
        check_text(sentence)
        if self.encoder == "bigru":
            return _ids(self.vocabulary.encode(sentence, self.max_tokens))
        if self.encoder == "clip":
            return _features(embed_texts([sentence], self.model, self.tokenizer)[:, None])
        (ids,) = token_ids([sentence], self.tokenizer, self.model.config, self.max_tokens)
        if self.encoder == "bert_finetune":
            return _ids(ids)
        return _features(self.model(torch.tensor([ids], device=self.device)).last_hidden_state)


def check_text(sentence: str) -> None:
    """Refuse what is no sentence.

    Raises:
        UserError: too long (see ``limits``), empty, or not to be written as UTF-8.
    """
    check_sentence(sentence)
    try:
        sentence.encode()
    except UnicodeEncodeError:  # from a terminal with another encoding
        raise UserError(f"the sentence {shown(sentence)} is not UTF-8 text") from None
    if not sentence.strip():
        raise UserError("the sentence is empty; give one such as 'two dogs running on grass'")


def _ids(ids: list[int]) -> Words:
    row = torch.from_numpy(np.asarray([ids], dtype=np.int64))
    return Words(features=None, mask=torch.ones(row.shape, dtype=torch.bool), ids=row)


def _features(values: torch.Tensor) -> Words:
    stored = values.half().float().cpu()
    return Words(features=stored, mask=torch.ones(stored.shape[:2], dtype=torch.bool))
