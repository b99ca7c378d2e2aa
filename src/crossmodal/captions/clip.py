"""One token per caption: its embedding by the text half of a dual encoder (CLIP, SigLIP), into the feature store."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossmodal.features.store import SHARD_ROWS, StoreWriter
from crossmodal.published.dual_encoder import embedding, embedding_size
from crossmodal.runtime import pick_device, progress


@torch.inference_mode()
def embed_captions(
    captions: list[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    batch_size: int,
) -> None:
    """Write a store with ``features`` (1, E) float16 per caption, as the model gives them, not normalised.

    Row c is caption c, see ``embed_texts``. Goes on behind the shards that ``folder`` already holds.
    """
    model = model.to(pick_device())
    writer = StoreWriter(folder, {"features": ("float16", (embedding_size(model),))})
    bar = progress(total=len(captions), initial=len(writer), desc="captions", unit="caption")
    for start in range(len(writer), len(captions), SHARD_ROWS):  # the same batches after a kill
        chunk = captions[start : start + SHARD_ROWS]
        for first in range(0, len(chunk), batch_size):
            values = embed_texts(chunk[first : first + batch_size], model, tokenizer).numpy()
            for row in values:
                writer.append({"features": row[None]})
            bar.update(len(values))
    bar.close()
    writer.close()


@torch.inference_mode()
def embed_texts(texts: list[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Embeddings of texts, (B, E) float32 on the CPU.

    Texts are cut at the model's own length; SigLIP was trained on texts padded to that length and is given them so.
    """
    tokens = tokenizer(
        texts,
        padding="max_length" if model.config.model_type.startswith("siglip") else "longest",
        truncation=True,
        max_length=model.config.max_position_embeddings,
        return_tensors="pt",
    )
    return embedding(model(**tokens.to(model.device))).float().cpu()
