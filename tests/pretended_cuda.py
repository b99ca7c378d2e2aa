"""What the pretended device takes over from CUDA: attention kernels, autocast lists, operations without an order."""

import re
from pathlib import Path

import torch

# What ``torch.use_deterministic_algorithms`` documents for CUDA: no fixed order at all, and one where it is required.
UNORDERED = {"_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward"}
UNORDERED |= {"avg_pool3d_backward", "max_pool3d_with_indices_backward", "fractional_max_pool2d_backward"}
UNORDERED |= {"upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"}
UNORDERED |= {"reflection_pad1d_backward", "reflection_pad2d_backward", "nll_loss2d_forward", "_ctc_loss_backward"}
UNORDERED |= {"put_", "histc", "bincount", "median", "grid_sampler_2d_backward", "_roi_align_backward"}
ORDERED_IF_ASKED = {"_scaled_dot_product_efficient_attention_backward", "_scaled_dot_product_flash_attention_backward"}


def _logits(query, key, bias, scale, causal):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    logits = (query @ key.mT).float() * scale
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1).bool(), float("-inf"))
    return (logits if bias is None else logits + bias), scale


def _kept(weights, p, seed):
    if not p:
        return torch.ones_like(weights)
    generator = torch.Generator().manual_seed(int(seed))
    return (torch.rand(weights.shape, generator=generator) >= p) / (1 - p)


def attention(query, key, value, bias, logsumexp, p=0.0, causal=False, *, scale=None):
    seed = torch.randint(2**31, ()) if p else torch.zeros((), dtype=torch.int64)
    weights = _logits(query, key, bias, scale, causal)[0].softmax(dim=-1)
    out = (weights * _kept(weights, p, seed)).to(value.dtype) @ value
    return out, weights.new_zeros(query.shape[:3]), seed, torch.zeros((), dtype=torch.int64)


def attention_backward(grad, query, key, value, bias, out, lse, seed, offset, p, wanted, causal=False, *, scale=None):
    logits, scale = _logits(query, key, bias, scale, causal)
    weights = logits.softmax(dim=-1)
    kept = _kept(weights, p, seed)
    grad_value = (weights * kept).mT.to(grad.dtype) @ grad
    grad_weights = (grad @ value.mT).float() * kept
    grad_logits = weights * (grad_weights - (grad_weights * weights).sum(dim=-1, keepdim=True))
    scaled = (grad_logits * scale).to(query.dtype)
    grad_bias = grad_logits.sum_to_size(bias.shape).to(bias.dtype) if bias is not None and wanted[3] else None
    return scaled @ key, scaled.mT @ query, grad_value, grad_bias


RECURRENT = [(name, kind) for name in ("gru", "lstm", "rnn_tanh", "rnn_relu") for kind in ("input", "data")]


def cast_lists():
    """CUDA's autocast lists: operation names to the kind of cast."""
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    for kind in ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE"):
        body = re.search(rf"#define AT_FORALL_{kind}\(_\)((?:.*\\\n)+.*\n)", header)[1]
        for name, overload in re.findall(r"_\((\w+)(?:, (\w+))?\)", body):
            yield kind, name, overload
    for name, overload in RECURRENT:
        yield "CUDNN", name, overload
