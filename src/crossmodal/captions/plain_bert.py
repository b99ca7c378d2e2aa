"""BERT (arXiv 1810.04805) as plain functions of its weights, for folders of the bert stage.

transformers takes seconds to import, and a search by a sentence needs one forward pass of a few milliseconds. The
forward pass here gives the same bits as that of transformers' ``BertModel``. Only folders of that model are read, with
a tokenizer that is tokenizer.json alone, as ``bert.source fit`` writes them; all others, damaged ones too, are left to
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer
from torch import Tensor, nn

from crossmodal.files.checked_json import read_json
from crossmodal.files.hub_models import Size, check_config
from crossmodal.files.weights import check_tensors, read_tensors


class PlainConfig(BaseModel):
    """Values of a config.json that ``PlainBert`` takes; names and defaults are those of transformers' BertConfig."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    model_type: Literal["bert"]
    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=1 << 10)]
    num_attention_heads: Annotated[int, Field(ge=1, le=1 << 10)]
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: Size
    hidden_act: Literal["gelu"]
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)]
    pad_token_id: int | None = 0
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    position_embedding_type: Literal["absolute"] = "absolute"
    chunk_size_feed_forward: Literal[0] = 0

    @model_validator(mode="after")
    def _heads_share_the_features(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size is no multiple of num_attention_heads")
        return self


# Of tokenizer_config.json: tokenizers to which transformers adds nothing.
TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


class PlainOutput(NamedTuple):
    """As transformers' models answer."""

    last_hidden_state: Tensor


class PlainTokenizer:
    """A tokenizer.json, called as transformers' tokenizers are."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        self.backend_tokenizer, self._longest = tokenizer, 0

    def __call__(self, texts: Sequence[str], *, truncation: Literal[True], max_length: int) -> dict[str, list]:
        """``input_ids`` of each text, at most ``max_length``, special tokens among them.

        Raises:
            ValueError: the library panics, as with a token that is not in the file; its own exception is no Exception.
        """
        del truncation
        if max_length != self._longest:  # several threads may share a tokenizer that is not changed any more
            self.backend_tokenizer.enable_truncation(max_length)
            self._longest = max_length
        try:
            return {"input_ids": [encoded.ids for encoded in self.backend_tokenizer.encode_batch(list(texts))]}
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(str(error)) from None


class PlainBert(nn.Module):
    """BERT without a pooler, in evaluation mode. ``weights``: by the names of transformers."""

    def __init__(self, config: PlainConfig, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "/"), value.float())

    @classmethod
    def shapes(cls, config: PlainConfig) -> dict[str, Tensor]:
        """The expected weights, on the meta device, which takes no memory."""
        size, inner = config.hidden_size, config.intermediate_size
        rows = {"word": config.vocab_size, "position": config.max_position_embeddings}
        rows["token_type"] = config.type_vocab_size
        shapes = {f"embeddings.{name}_embeddings.weight": (count, size) for name, count in rows.items()}
        shapes |= {f"embeddings.LayerNorm.{part}": (size,) for part in ("weight", "bias")}
        maps = {f"attention.self.{name}": (size, size) for name in ("query", "key", "value")}
        maps |= {"attention.output.dense": (size, size), "intermediate.dense": (inner, size)}
        maps["output.dense"] = (size, inner)
        for layer in range(config.num_hidden_layers):
            for name, shape in maps.items():
                shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
                shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
            for name in ("attention.output", "output"):
                shapes |= {f"encoder.layer.{layer}.{name}.LayerNorm.{part}": (size,) for part in ("weight", "bias")}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    def forward(self, ids: Tensor, attention_mask: Tensor) -> PlainOutput:
        """Ids (B, L) and their mask (B, L), 1 where there is a token, to features (B, L, H)."""
        part = self._part
        words = F.embedding(ids, part("embeddings.word_embeddings.weight"))
        values = words + part("embeddings.token_type_embeddings.weight")[0]
        values = values + part("embeddings.position_embeddings.weight")[: ids.shape[1]]
        values = self._norm("embeddings", values)
        mask = (
            None if attention_mask.all() else attention_mask.bool()[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        )
        for layer in range(self.config.num_hidden_layers):
            values = self._layer(f"encoder.layer.{layer}", values, mask)
        return PlainOutput(values)

    def _layer(self, name: str, values: Tensor, mask: Tensor | None) -> Tensor:
        """A post-norm transformer layer: (B, L, H) to (B, L, H)."""
        heads = (
            self._map(f"{name}.attention.self.{part}", values)
            .unflatten(-1, (self.config.num_attention_heads, -1))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
        values = self._norm(f"{name}.attention.output", self._map(f"{name}.attention.output.dense", attended) + values)
        inner = F.gelu(self._map(f"{name}.intermediate.dense", values))
        return self._norm(f"{name}.output", self._map(f"{name}.output.dense", inner) + values)

    def _map(self, name: str, values: Tensor) -> Tensor:
        return F.linear(values, self._part(f"{name}.weight"), self._part(f"{name}.bias"))

    def _norm(self, name: str, values: Tensor) -> Tensor:
        weight, bias = self._part(f"{name}.LayerNorm.weight"), self._part(f"{name}.LayerNorm.bias")
        return F.layer_norm(values, weight.shape, weight, bias, self.config.layer_norm_eps)

    def _part(self, name: str) -> Tensor:
        return self._buffers[name.replace(".", "/")]


def read_plain_bert(folder: Path) -> tuple[PlainBert, PlainTokenizer] | None:
    """The encoder of a folder and its tokenizer; None of a folder that is for transformers to read."""
    try:
        content = read_json(folder / "config.json", dict)
        check_config(content, "")
        config = PlainConfig.model_validate(content)
        if read_json(folder / "tokenizer_config.json", dict)["tokenizer_class"] not in TOKENIZERS:
            return None
        weights = read_tensors(folder / "model.safetensors")
        check_tensors(weights, PlainBert.shapes(config), "", "")
        tokenizer = PlainTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")))
        tokenizer(["a"], truncation=True, max_length=config.max_position_embeddings)
    except Exception:  # whatever it is: transformers can read the folder, or says what is wrong with it
        return None
    return PlainBert(config, weights), tokenizer
