"""Gradient caching (Gao et al., arXiv 2101.06983): batches whose encoding does not fit into memory (``train.chunk``).

A loss compares every image of a batch with every caption, so that a batch cannot be split as examples of a classifier
can. But encoding one item takes no other, and what it leaves is small:

    1. encode chunk by chunk; of each chunk the output alone is kept     e_c = f(x_c)
    2. similarity and loss of the whole batch, back to the outputs       g_c = dL / d e_c
    3. encode each chunk again and pass its gradient on                  dL / d theta = sum_c g_c (d e_c / d theta)

Both passes over a chunk draw the same random numbers, so that with dropout too the gradients are those of one graph of
all chunks. It takes the time of a second forward pass. A batch norm in training mode does need the other items: where a
side's ``encode_images`` or ``encode_captions`` has one, the chunks are those of the network below it (``model.image``,
``model.text``), and what is above sees the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossmodal.batch import Batched, Encoding, Regions, Words
from crossmodal.errors import UserError
from crossmodal.models.base import Matcher
from crossmodal.models.region_norm import RegionNorm

BATCH_NORMS = (_BatchNorm, RegionNorm)

Items = TypeVar("Items", bound=Batched)


class ChunkedEncoder:
    """Encodes a batch ``size`` images or captions at a time, and later passes their gradients on.

    Args:
        autocast: makes the context of the forward passes.

    Raises:
        UserError: the image or text network has batch norms in training mode.
    """

    def __init__(self, model: Matcher, size: int, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self.model, self.size, self.autocast = model, size, autocast
        for name in ("image", "text"):
            if _batch_norms(getattr(model, name).train()):
                raise UserError(
                    f"params.yaml: train.chunk {size}: the {name} network's batch norms need the whole batch; "
                    "set grid_finetune.batch_norm to frozen or train.chunk to 0"
                )
        self._whole: dict[str, bool] = {}
        self._repeats: list[Callable[[], None]] = []

    def encode(
        self, regions: Regions, words: Sequence[Words], seed: Callable[[int], None]
    ) -> tuple[Encoding, list[Encoding]]:
        """Encode images, and captions in several paddings, in float32.

        Args:
            seed: seeds torch's generators for the forward pass of that number.
        """
        self._repeats, self._seed, self._number = [], seed, 0
        return self._side("image", regions), [self._side("text", part) for part in words]

    def backward(self) -> None:
        """Add to the parameters' gradients what the loss, after its own backward pass, asks of every chunk."""
        for repeat in self._repeats:
            repeat()
        self._repeats = []

    def _side(self, name: str, items: Regions | Words) -> Encoding:
        model = self.model
        network = model.region_features if name == "image" else model.word_features
        above = model.encode_images if name == "image" else model.encode_captions
        both = model.encode_regions if name == "image" else model.encode_text
        if name not in self._whole:
            self._whole[name] = _meets_batch_norm(model, lambda one: above(network(one)), items[:1])
        if not self._whole[name]:
            return self._in_chunks(lambda chunk: both(chunk).float(), items, "vectors")
        if next(getattr(model, name).parameters(), None) is None:
            return self._run(lambda batch: both(batch).float(), items, self._next())
        made = self._in_chunks(network, items, "features")
        return self._run(lambda batch: above(batch).float(), made, self._next())

    def _in_chunks(self, encode: Callable[[Items], Batched], items: Items, output: str) -> Batched:
        """``encode`` of all items, cut off from the graph; ``output``: the tensor of what it gives that has one."""
        encoded = []
        for start in range(0, len(items), self.size):
            chunk, number = items[start : start + self.size], self._next()
            given = self._run(encode, chunk, number)
            values = getattr(given, output)
            kept = values.detach().requires_grad_(values.requires_grad)
            if values.requires_grad:
                self._repeats.append(partial(self._repeat, encode, chunk, number, output, kept))
            encoded.append(replace(given, **{output: kept}))
        return join(encoded)

    def _repeat(
        self, encode: Callable[[Items], Batched], chunk: Items, number: int, output: str, kept: torch.Tensor
    ) -> None:
        if kept.grad is not None:
            getattr(self._run(encode, chunk, number), output).backward(kept.grad)

    def _run(self, encode: Callable[[Items], Batched], items: Items, number: int) -> Batched:
        # The first pass builds a graph too, though it is dropped: kernels, and the random numbers they draw, may be
        # others without gradients.
        self._seed(number)
        with self.autocast():
            return encode(items)

    def _next(self) -> int:
        self._number += 1
        return self._number


def join(parts: Sequence[Items]) -> Items:
    """Batches one below the other; sets are padded with zeros to the longest."""
    if len(parts) == 1:
        return parts[0]
    present = [name for name, value in vars(parts[0]).items() if value is not None]
    return replace(parts[0], **{name: _rows([getattr(part, name) for part in parts]) for name in present})


def _rows(values: Sequence[torch.Tensor]) -> torch.Tensor:
    longest = max(value.shape[1] for value in values)
    return torch.cat([F.pad(value, [0, 0] * (value.ndim - 2) + [0, longest - value.shape[1]]) for value in values])


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    """Batch norms in training mode."""
    return [part for part in module.modules() if isinstance(part, BATCH_NORMS) and part.training]


class _BatchNormMetError(Exception):
    """A forward pass has come to a batch norm in training mode."""


def _meets_batch_norm(model: nn.Module, encode: Callable[[Items], Batched], one: Items) -> bool:
    """Whether encoding comes to a batch norm in training mode; it is stopped there."""

    def stop(module: nn.Module, inputs: Any) -> None:
        del module, inputs
        raise _BatchNormMetError

    hooks = [norm.register_forward_pre_hook(stop) for norm in _batch_norms(model)]
    try:
        with torch.no_grad():
            encode(one)
    except _BatchNormMetError:
        return True
    finally:
        for hook in hooks:
            hook.remove()
    return False
