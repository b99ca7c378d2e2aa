"""Blocks that several models share. Masks are True where there is something."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crossmodal.batch import Regions, sent
from crossmodal.errors import UserError
from crossmodal.models.process_norms import most_of_processes


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real items: (B, N, E), (B, N) -> (B, E)."""
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def pool(values: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """mean or max over the real items, or the first item (cls): (B, N, E), (B, N) -> (B, E)."""
    if mode == "cls":
        return values[:, 0]
    if mode == "mean":
        return masked_mean(values, mask)
    return values.masked_fill(~mask.unsqueeze(-1), float("-inf")).max(dim=1).values


def run_rnn(rnn: nn.GRU, values: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and last state of a recurrent network: (B, N, E), (B,) -> (B, N, directions * H), (directions, B, H).

    Outputs beyond a row's length are 0. In float32: autocast on CUDA would take float16, without loss scaling.

    Args:
        lengths: on the CPU. Rows are sorted here, since torch's own sorting asks the device for their order.
    """
    lengths, order = lengths.sort(descending=True)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    order, back = sent(torch.stack([order, back]), values.device)
    with torch.autocast(values.device.type, enabled=False):
        packed = pack_padded_sequence(values.float().index_select(0, order), lengths, batch_first=True)
        output, state = rnn(packed)
        output = pad_packed_sequence(output, batch_first=True, total_length=values.shape[1])[0]
        return output.index_select(0, back), state.index_select(1, back)


class _Take(torch.autograd.Function):
    """Rows by distinct indices; the backward pass writes each row, where that of index_select adds in any order."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(items)
        ctx.rows = len(flat)
        return flat.index_select(0, items)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (items,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.rows, gradient.shape[1]).index_copy(0, items, gradient), None


def take_items(values: torch.Tensor, items: torch.Tensor | None) -> torch.Tensor:
    """The real items of all sets: (B, N, E) -> (M, E). ``items``: see ``Masked.real_items``."""
    flat = values.flatten(0, 1)
    return flat if items is None else _Take.apply(flat, items)


def put_items(real: torch.Tensor, items: torch.Tensor | None, sets: int, longest: int) -> torch.Tensor:
    """The items that ``take_items`` took, in sets again, 0 at padding: (M, E) -> (sets, longest, E)."""
    if items is None:
        return real.view(sets, longest, -1)
    return real.new_zeros(sets * longest, real.shape[1]).index_copy(0, items, real).view(sets, longest, -1)


def word_map(section: str, setting: str, inputs: int, dim: int) -> nn.Module:
    """``SECTION.word_map``: a linear map of token features, or none where they have ``dim`` values already.

    Raises:
        UserError: none, and token features of another size.
    """
    if setting == "linear":
        return nn.Linear(inputs, dim)
    if inputs != dim:
        raise UserError(
            f"{section}.word_map none: token features of size {inputs} are used as they are, "
            f"{section}.embed_dim is {dim}; make them equal (bigru.hidden) or word_map linear"
        )
    return nn.Identity()


def draw_xavier(model: nn.Module) -> None:
    """Xavier weights and zero biases of all linear maps, as SCAN and SGRAF publish."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def region_maps(inputs: int, dim: int, hidden: int) -> tuple[nn.Linear, nn.Sequential | None]:
    """The maps of ``map_regions``: a linear one, and an MLP with ``hidden`` units (VSE-infinity), None for 0."""
    linear = nn.Linear(inputs, dim)
    draw_xavier(linear)
    if not hidden:
        return linear, None
    return linear, nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim))


def map_regions(regions: Regions, linear: nn.Linear, mlp: nn.Module | None, *, norm_padding: bool) -> torch.Tensor:
    """A linear map of region features, with an MLP in parallel: (B, R, D) -> (B, R, E), 0 at padding.

    ``norm_padding``: in training the MLP's batch norm counts the zeros that pad images to the longest of the batch,
    which several processes share.
    """
    items = regions.real_items()
    real = take_items(regions.features, items)  # (regions of all images, D)
    mapped = linear(real)
    if mlp is not None:
        rows = real
        if mlp.training and norm_padding:
            counts = regions.lengths()
            longest = most_of_processes(int(counts.max()))
            rows = torch.cat([real, real.new_zeros(longest * len(counts) - len(real), real.shape[1])])
        mapped = mapped + mlp(rows)[: len(real)]
    return put_items(mapped, items, *regions.mask.shape)


class SetDropout(nn.Module):
    """Dropout with one mask for all items of a set (Gal and Ghahramani, arXiv 1512.05287): (B, N, D) -> (B, N, D).

    A mask for each item would average out in a pooling over many.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return values
        return values * F.dropout(values.new_ones(len(values), 1, values.shape[-1]), self.p)


class TransformerEncoder(nn.Module):
    """Post-norm transformer encoder with ReLU (Vaswani et al. 2017), as TERN uses it, over the items of sets.

    The real items of B sets, (M, E) -> (M, E), as ``take_items`` gives them: ``items`` says which they are, ``mask``
    (B, N). Only the attention computes padding. Zero layers are the identity. Parameters are those of
    torch.nn.TransformerEncoder. ``start``: drawn, each layer has random weights of its own; copies, all start as copies
    of one, as torch's do.
    """

    def __init__(
        self, dim: int, *, layers: int, heads: int, feed_forward: int, dropout: float, start: str = "drawn"
    ) -> None:
        super().__init__()

        def layer() -> nn.TransformerEncoderLayer:
            return nn.TransformerEncoderLayer(dim, heads, feed_forward, dropout, activation="relu", batch_first=True)

        drawn = [layer() for _ in range(min(layers, 1) if start == "copies" else layers)]
        copies = [copy.deepcopy(drawn[0]) for _ in range(layers - len(drawn))]
        self.layers = nn.ModuleList(drawn + copies)

    def forward(self, real: torch.Tensor, items: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        # On a CPU the fused kernel's backward takes several times as long as plain products at these lengths. The
        # switch is of the whole process: where nothing is trained, other threads may be at work, and it stays.
        training = real.device.type == "cpu" and torch.is_grad_enabled()
        with sdpa_kernel(SDPBackend.MATH) if training else nullcontext():
            for layer in self.layers:
                attended = layer.dropout1(_attend(layer.self_attn, real, items, mask))
                real = layer.norm1(real + attended)
                hidden = layer.dropout(F.relu(layer.linear1(real)))
                real = layer.norm2(real + layer.dropout2(layer.linear2(hidden)))
        return real


def _attend(
    attention: nn.MultiheadAttention, real: torch.Tensor, items: torch.Tensor | None, mask: torch.Tensor
) -> torch.Tensor:
    """Multi-head self-attention among the items of each set, which are padded for the attention alone: (M, E)."""
    projected = F.linear(real, attention.in_proj_weight, attention.in_proj_bias)
    heads = put_items(projected, items, *mask.shape).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, heads, N, E / heads)
    dropout = attention.dropout if attention.training else 0.0
    present = None if items is None else mask[:, None, None, :]
    values = F.scaled_dot_product_attention(query, key, value, attn_mask=present, dropout_p=dropout)
    return attention.out_proj(take_items(values.transpose(1, 2).flatten(2), items))


class BoxPositions(nn.Module):
    """Joins region features and box positions: (..., D), (..., 4) -> (..., E).

    concat: Linear(D + 5 -> E), ReLU, Linear(E -> E), TERN's published form. sum: Linear(D -> E) + Linear(5 -> E), that
    of kaylode/tern. none: Linear(D -> E), boxes may be None. The location is multiplied by ``scale``: next to features
    far larger than 1 it would have little weight.
    """

    def __init__(self, feature_dim: int, dim: int, mode: str, scale: float) -> None:
        super().__init__()
        self.mode, self.scale = mode, scale
        if mode == "concat":
            self.map = nn.Sequential(nn.Linear(feature_dim + 5, dim), nn.ReLU(), nn.Linear(dim, dim))
        else:
            self.features = nn.Linear(feature_dim, dim)
            self.location = nn.Linear(5, dim) if mode == "sum" else None

    def forward(self, features: torch.Tensor, boxes: torch.Tensor | None) -> torch.Tensor:
        if self.mode == "none":
            return self.features(features)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        location = self.scale * torch.cat([boxes, area.unsqueeze(-1)], dim=-1)  # (..., 5): x1 y1 x2 y2 area
        if self.mode == "concat":
            return self.map(torch.cat([features, location], dim=-1))
        return self.features(features) + self.location(location)
