"""Token features or token ids of every caption into the feature store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossmodal.captions.bert import token_ids
from crossmodal.features.store import SETTINGS, SHARD_ROWS, StoreWriter
from crossmodal.runtime import pick_device, progress


def store_ids(ids: list[list[int]], folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write a store with ``token_ids`` (tokens,) int32 per caption, for encoders trained with the model.

    Args:
        settings: kept with the store, what sentences that come later are to be read by.
    """
    writer = StoreWriter(folder, {"token_ids": ("int32", ())})
    for row in ids[len(writer) :]:
        writer.append({"token_ids": np.asarray(row)})
    writer.close({SETTINGS: dict(settings)} if settings else None)


@torch.inference_mode()
def encode_captions(
    captions: list[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    max_tokens: int,
    batch_size: int,
) -> None:
    """Write a store with ``features`` (tokens, H) float16 and ``token_ids`` (tokens,) int32 per caption.

    Row c is caption c; [CLS] and [SEP] are among the tokens, padding is not. H is the encoder's hidden
    size, features are its last layer's output. Captions beyond ``max_tokens`` are cut. Goes on behind the
    shards that ``folder`` already holds.
    """
    device = pick_device()
    model = model.to(device)
    hidden, padding = model.config.hidden_size, model.config.pad_token_id or 0
    writer = StoreWriter(folder, {"features": ("float16", (hidden,)), "token_ids": ("int32", ())})
    bar = progress(total=len(captions), initial=len(writer), desc="captions", unit="caption")
    for start in range(len(writer), len(captions), SHARD_ROWS):
        chunk = captions[start : start + SHARD_ROWS]
        ids = token_ids(chunk, tokenizer, model.config, max_tokens)
        by_length = sorted(range(len(chunk)), key=lambda row: len(ids[row]))
        features: list[np.ndarray] = [np.empty(0)] * len(chunk)
        for first in range(0, len(chunk), batch_size):
            rows = by_length[first : first + batch_size]
            padded = pad_sequence([torch.tensor(ids[row]) for row in rows], batch_first=True, padding_value=padding)
            mask = torch.arange(padded.shape[1]) < torch.tensor([len(ids[row]) for row in rows])[:, None]
            output = model(padded.to(device), attention_mask=mask.long().to(device)).last_hidden_state
            for place, row in enumerate(rows):
                features[row] = output[place, : len(ids[row])].cpu().numpy()
            bar.update(len(rows))
        for row, values in enumerate(features):
            writer.append({"features": values, "token_ids": np.asarray(ids[row])})
    bar.close()
    read_by = {"captions.max_tokens": max_tokens}
    writer.close({"hidden_size": hidden, "layers": model.config.num_hidden_layers, SETTINGS: read_by})
