"""Which token ids belong together to a word, so that training can drop whole words."""

from __future__ import annotations

import numpy as np
from tokenizers import models
from transformers import PreTrainedTokenizerBase

from crossmodal.captions.vocabulary import Vocabulary
from crossmodal.features.batches import TokenTable

_SPACES = ("Ġ", "▁")  # of byte-level BPE and SentencePiece
MASK = "<mask>"


def table_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> TokenTable:
    """The table of a BERT's tokenizer, or of another that puts a token at either end of a caption.

    WordPiece marks the pieces that go on with a word (##); byte-level BPE and SentencePiece mark those that begin one,
    so that a punctuation mark without a space in front of it counts to the word before. Without such marks every token
    is a word.
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


def table_of_vocabulary(vocabulary: Vocabulary) -> TokenTable:
    """The table of a BiGRU's words, <start> and <end> among them, as published.

    The published code adds <mask> to its vocabulary; where it is not in it the id is the one after the last word's.
    """
    mask = vocabulary.ids.get(MASK, len(vocabulary))
    return TokenTable(np.zeros(max(len(vocabulary), mask + 1), dtype=bool), mask, ends=False)
