"""Which tokens make a word, with the tokenizers of BERT, RoBERTa and ALBERT and with a BiGRU's vocabulary."""

import pytest
from assertions import raises_naming
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from crossmodal.captions import bert_encoders
from crossmodal.captions.bert_encoders import table_of_tokenizer
from crossmodal.captions.encoders import ENCODERS
from crossmodal.captions.vocabulary import SPECIAL, Vocabulary


def tokenizer_of(model, pre_tokenizer, special):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    start, end, unknown, mask = special
    tokenizer.post_processor = processors.BertProcessing((end, 1), (start, 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=start, sep_token=end, unk_token=unknown, mask_token=mask
    )


BERT = ("[CLS]", "[SEP]", "[UNK]", "[MASK]")
PIECES = [*BERT, "skate", "##board", "##ing", "#", "a", "."]
SPACED = ["<s>", "</s>", "<unk>", "<mask>", "{}skate", "board", "ing", "{}a", "."]


def words_of(tokenizer, caption):
    """The caption's tokens, joined where the table says that they make a word."""
    table = table_of_tokenizer(tokenizer)
    words = []
    for token, number in zip(tokenizer.tokenize(caption), tokenizer.encode(caption)[1:-1], strict=True):
        if words and table.continues[number]:
            words[-1] += token
        else:
            words.append(token)
    return words


def test_word_pieces():
    model = models.WordPiece({token: number for number, token in enumerate(PIECES)}, unk_token="[UNK]")
    tokenizer = tokenizer_of(model, pre_tokenizers.BertPreTokenizer(), BERT)
    assert words_of(tokenizer, "skateboarding zebra a #.") == ["skate##board##ing", "[UNK]", "a", "#", "."]
    table = table_of_tokenizer(tokenizer)
    assert (table.mask, table.ends, len(table.continues)) == (PIECES.index("[MASK]"), True, len(PIECES))


@pytest.mark.parametrize("space", ["Ġ", "▁"])
def test_tokens_that_begin_words_are_marked(space):
    tokens = [token.format(space) for token in SPACED]
    model = models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>")
    table = table_of_tokenizer(tokenizer_of(model, pre_tokenizers.Whitespace(), ("<s>", "</s>", "<unk>", "<mask>")))
    assert [token for token, continues in zip(tokens, table.continues, strict=True) if continues] == [
        "board", "ing", ".",
    ]  # fmt: skip
    assert table.mask == 3


def test_a_vocabulary_has_one_id_more_for_masks_unless_it_holds_one(tmp_path):
    Vocabulary([*SPECIAL, "a", "dog"]).save(tmp_path / "vocabulary.json")
    table = ENCODERS["bigru"].token_table(tmp_path, tmp_path)
    assert (table.mask, len(table.continues), table.continues.any(), table.ends) == (6, 7, False, False)
    Vocabulary([*SPECIAL, "a", "<mask>", "dog"]).save(tmp_path / "vocabulary.json")
    table = ENCODERS["bigru"].token_table(tmp_path, tmp_path)
    assert (table.mask, len(table.continues)) == (5, 7)


def test_masking_needs_a_token_for_it(tmp_path, monkeypatch):
    """Of ids, words are masked; of features, they are dropped and no mask is needed."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    monkeypatch.setattr(bert_encoders, "load_bert", lambda folder: (None, tokenizer))
    assert ENCODERS["bert"].token_table(tmp_path, tmp_path).mask is None
    assert ENCODERS["clip"].token_table(tmp_path, tmp_path) is None
    with raises_naming("train.word_dropout_kind"):
        ENCODERS["bert_finetune"].token_table(tmp_path, tmp_path)
