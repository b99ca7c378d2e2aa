"""A small BERT fitted here: WordPiece vocabulary and masked language modelling (arXiv 1810.04805) on captions.
For datasets of simple language, for machines without access to a hub, and for a text encoder of which is known what
it has read.

``bert.objective: masked``: two captions of an image make one training text, as BERT's sentence pairs do: a masked
colour can then be predicted from the other caption, which teaches the encoder which words belong together.
``pairs``: the two are encoded apart, each with its masked tokens, and their means over tokens are matched with each
other among those of the batch by InfoNCE, as sentence encoders are trained (arXiv 1908.10084, 2104.08821).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup
from transformers.utils import logging as transformers_logging

from crossmodal.captions.vocabulary import NORMALIZER, SPLITTER, split_words
from crossmodal.runtime import (
    pick_device,
    progress,
    random_state,
    restore_random_state,
    seed_everything,
    usable_precision,
)
from crossmodal.settings.features import Bert
from crossmodal.workspace import load_state, save_state

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MAX_TOKENS = 64
_TEMPERATURE = 0.05  # of the cosines of two captions, as in SimCSE (arXiv 2104.08821)

_T = TypeVar("_T")
_Text = list[int]  # token ids
_Pair = tuple[int, _Text, _Text]  # number of the image, two of its captions


def fit_bert(captions: list[Sequence[str]], settings: Bert, folder: Path, resume: Path) -> None:
    """Fit vocabulary and encoder on captions and save both with ``save_pretrained`` in ``folder``.

    Args:
        captions: of the training images (and of others, none of val or test), image by image.
        settings: sizes, epochs, learning rate, objective, share of masked tokens, seed.
        folder: exists; receives config, weights and tokenizer.
        resume: folder for the state of the last finished epoch, taken up if it is there.
    """
    tokenizer = fit_tokenizer([caption for image in captions for caption in image], settings.vocab_size)
    tokenizer.save_pretrained(folder)
    seed_everything(settings.seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.fit_layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.hidden_size,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    device = pick_device()
    model = BertForMaskedLM(config).to(device).train()
    tokens = [tokenizer(list(image), truncation=True, max_length=_MAX_TOKENS)["input_ids"] for image in captions]
    texts = sum(-(-len(image) // 2) for image in tokens)
    steps = settings.epochs * -(-texts // settings.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=steps // 10, num_training_steps=steps)
    state_path, first_epoch = resume / "state.pt", 0
    if state := load_state(state_path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        restore_random_state(state["rng"], device)
        first_epoch = state["epoch"]
    pairs = settings.objective == "pairs"
    precision = usable_precision(settings.precision, device.type, "bert.precision")
    bar = progress(total=steps, initial=first_epoch * steps // settings.epochs, desc="bert", unit="batch")
    for epoch in range(first_epoch, settings.epochs):
        rng = np.random.default_rng([settings.seed, epoch])
        for batch in (_pair_batches if pairs else _batches)(tokens, settings.batch_size, rng):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = (_pair_loss if pairs else _masked_loss)(model, batch, tokenizer, settings.mask, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        save_state(
            state_path,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "rng": random_state(device),
                "epoch": epoch + 1,
            },
        )
    bar.close()
    transformers_logging.disable_progress_bar()  # of writing one file
    model.bert.save_pretrained(folder)


def fit_tokenizer(captions: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer with BERT's special tokens, its vocabulary taken from captions.

    The vocabulary is the special tokens, every letter (alone and as a continuation), and the most frequent
    words; rarer words are spelled. It is the same for the same captions, which the merging trainer of the
    tokenizers library does not promise: it breaks ties by the order of a hash map.
    """
    words = Counter(word for caption in captions for word in split_words(caption))
    letters = sorted({letter for word in words for letter in word})
    entries = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    entries += frequent[: max(0, vocab_size - len(entries))]
    vocabulary = {token: number for number, token in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = NORMALIZER, SPLITTER
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}  # pad_token: [PAD], ...
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _batches(tokens: list[list[_Text]], size: int, rng: np.random.Generator) -> list[list[_Text]]:
    """Shuffled batches of caption pairs ([CLS] a [SEP] b [SEP]) of similar length, so that little padding is computed.

    An odd caption of an image is paired with one of the others.
    """
    texts = [a + (b[1:] if a is not b else []) for _, a, b in _pairs(tokens, rng)]
    return _by_length(texts, len, size, rng)


def _pair_batches(tokens: list[list[_Text]], size: int, rng: np.random.Generator) -> list[list[_Pair]]:
    """Shuffled batches of two captions of an image each, of similar length; an image may have several in a batch."""
    return _by_length(_pairs(tokens, rng), lambda pair: max(len(pair[1]), len(pair[2])), size, rng)


def _pairs(tokens: list[list[_Text]], rng: np.random.Generator) -> list[_Pair]:
    """Every caption once, two by two; the odd one of an image with one of the others, an only one with itself."""
    pairs = []
    for number, image in enumerate(tokens):
        order = rng.permutation(len(image))
        pairs += [(number, image[a], image[b]) for a, b in zip(order[::2], np.roll(order, -1)[::2], strict=True)]
    return pairs


def _by_length(items: list[_T], length: Callable[[_T], int], size: int, rng: np.random.Generator) -> list[list[_T]]:
    order = rng.permutation(len(items))
    batches = []
    for start in range(0, len(order), 20 * size):
        pool = sorted(order[start : start + 20 * size], key=lambda row: length(items[row]))
        batches += [[items[row] for row in pool[first : first + size]] for first in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def _masked_loss(
    model: BertForMaskedLM,
    batch: list[_Text],
    tokenizer: PreTrainedTokenizerFast,
    p: float,
    device: torch.device,
) -> torch.Tensor:
    """Cross-entropy of tokens chosen with probability ``p``: 80 % masked, 10 % random, 10 % left (arXiv 1810.04805)."""
    return _encode_masked(model, batch, tokenizer, p, device)[0]


def _pair_loss(
    model: BertForMaskedLM,
    batch: list[_Pair],
    tokenizer: PreTrainedTokenizerFast,
    p: float,
    device: torch.device,
) -> torch.Tensor:
    """``_masked_loss`` of all captions, and InfoNCE of the pairs' means over tokens, per pair.

    Pairs of one image are no negatives of each other.
    """
    images, first, second = zip(*batch, strict=True)
    masked, hidden, attention = _encode_masked(model, [*first, *second], tokenizer, p, device)
    weights = attention[:, :, None].to(hidden)
    means = F.normalize((hidden * weights).sum(dim=1).float() / weights.sum(dim=1), dim=-1)
    numbers, pair = torch.tensor(images, device=device), torch.arange(len(batch), device=device)
    same_image = (numbers[:, None] == numbers) & (pair[:, None] != pair)
    logits = (means[: len(batch)] @ means[len(batch) :].T).float() / _TEMPERATURE
    logits = logits.masked_fill(same_image, float("-inf"))
    return masked + (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


def _encode_masked(
    model: BertForMaskedLM,
    batch: list[_Text],
    tokenizer: PreTrainedTokenizerFast,
    p: float,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of ``_masked_loss``, the last layer's output (B, N, D) and the mask of tokens (B, N)."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in batch], batch_first=True, padding_value=tokenizer.pad_token_id
    )
    attention = ids != tokenizer.pad_token_id
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape) < p) & ~special
    chance = torch.rand(ids.shape)
    inputs = ids.masked_fill(chosen & (chance < 0.8), tokenizer.mask_token_id)
    random_ids = torch.randint(len(SPECIAL_TOKENS), len(tokenizer), ids.shape)
    inputs = torch.where(chosen & (chance >= 0.8) & (chance < 0.9), random_ids, inputs)
    attention = attention.to(device)
    hidden = model.bert(inputs.to(device), attention_mask=attention).last_hidden_state
    logits = model.cls(hidden[chosen.to(device)])  # the vocabulary is scored at the chosen tokens only
    loss = F.cross_entropy(logits, ids[chosen].to(device)) if chosen.any() else hidden.sum() * 0
    return loss, hidden, attention
