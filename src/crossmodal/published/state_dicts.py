"""State dicts of the published implementations, renamed to this project's.

Each function takes a published state dict and returns it under the names of its matcher. It raises a UserError for an
entry that the published model does not have.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from crossmodal.errors import UserError

Tensors = dict[str, torch.Tensor]

# mesnico/TERN and mesnico/TERAN: published prefix -> ours
_TERN = {
    "img_txt_enc.img_enc.pos_encoding_image.map.": "positions.map.",
    "img_txt_enc.img_enc.transformer_encoder.": "visual_encoder.",
    "img_txt_enc.img_proj.": "image_map.",
    "img_txt_enc.txt_enc.transformer_encoder.": "text_encoder.",
    "img_txt_enc.cap_proj.": "caption_map.",
    "img_txt_enc.transformer_encoder_1.": "encoder.",
    "img_txt_enc.transformer_encoder_2.": "image_encoder.",
}
# Maps of the published encoders whose outputs the published models never use; BERT, which is a stage here, and its word
# embeddings, which are registered under a second name.
_TERN_UNUSED = tuple(
    f"img_txt_enc.{part}." for part in ("img_enc.fc", "txt_enc.map", "txt_enc.bert_model", "txt_enc.word_embeddings")
)

# woodfrog/vse_infty: published prefix -> ours
_VSE_INFTY = {
    "img_enc.fc.": "image_map.",
    "img_enc.mlp.layers.0.": "image_mlp.0.",
    "img_enc.mlp.bns.0.": "image_mlp.1.",
    "img_enc.mlp.layers.1.": "image_mlp.3.",
    "img_enc.gpool.": "image_pool.",
    "txt_enc.linear.": "caption_map.",
    "txt_enc.gpool.": "caption_pool.",
}
# A norm after the last layer that the published MLP has and never applies, and the text encoders.
_VSE_INFTY_UNUSED = ("img_enc.mlp.bns.1.", "txt_enc.bert.", "txt_enc.embed.", "txt_enc.rnn.")

# KevinLight831/ESA: published prefix -> ours
_ESA = {name: ours for name, ours in _VSE_INFTY.items() if "gpool" not in name} | {
    "img_enc.linear1.": "image_pool.linear.",
    "txt_enc.linear1.": "caption_pool.linear.",
}

# CrossmodalGroup/X-Dim: published prefix -> ours; the third state dict of a file is read as sim_enc
_XDIM = {name: ours for name, ours in _VSE_INFTY.items() if "gpool" not in name} | {
    f"{part}.{name}.weight": f"dimensions.{ours}"
    for part in ("sim_vec", "sim_enc")
    for name, ours in {
        "weights": "joint",  # (E, E)
        "sim_map": "alpha",  # (1, E) -> (E,)
        "temp_learnable": "log_tau",  # (1, 1) -> ()
        "temp_scale": "log_lambda",
    }.items()
}
_XDIM_UNUSED = (*_VSE_INFTY_UNUSED, "sim_vec.sim_eval.", "sim_enc.sim_eval.")

# ppanzx/CHAN: published prefix -> ours
_CHAN = {
    "img_enc.fc.": "image_map.",
    "img_enc.feedforward.ln.": "attention.norm.",
    "img_enc.feedforward.attn.": "attention.attention.",
    "txt_enc.linear.": "caption_map.",
}
_CHAN_UNUSED = ("txt_enc.fc.",)  # a map that the published BiGRU encoder has and never applies

# HuiChen24/IMRAM: published prefix -> ours
_IMRAM = {
    "img_enc.fc_local.": "region_map.",
    "linear_t2i.": "word_memory.update.",
    "gate_t2i.": "word_memory.gate.",
    "linear_i2t.": "region_memory.update.",
    "gate_i2t.": "region_memory.gate.",
}

# Paranioar/SGRAF: published prefix -> ours, but for the graph steps, which are numbered
_SGRAF = {
    "img_enc.fc.": "region_map.",
    "txt_enc.embed.": "text.embed.",
    "txt_enc.cap_rnn.": "text.rnn.",
    "sim_enc.v_global_w.embedding_local.0.": "image_attention.local_map.",
    "sim_enc.v_global_w.embedding_local.1.": "image_attention.local_norm.",
    "sim_enc.v_global_w.embedding_global.0.": "image_attention.global_map.",
    "sim_enc.v_global_w.embedding_global.1.": "image_attention.global_norm.",
    "sim_enc.v_global_w.embedding_common.0.": "image_attention.weight_map.",
    "sim_enc.t_global_w.embedding_local.0.": "caption_attention.local_map.",
    "sim_enc.t_global_w.embedding_global.0.": "caption_attention.global_map.",
    "sim_enc.t_global_w.embedding_common.0.": "caption_attention.weight_map.",
    "sim_enc.sim_tranloc_w.": "scorer.local_map.",
    "sim_enc.sim_tranglo_w.": "scorer.global_map.",
    "sim_enc.sim_eval_w.": "scorer.score_map.",
    "sim_enc.SAF_module.attn_sim_w.": "scorer.reasoning.gate.",
    "sim_enc.SAF_module.bn.": "scorer.reasoning.norm.",
}
_SGRAF_STEP = {"graph_query_w.": "query.", "graph_key_w.": "key.", "sim_graph_w.": "map."}


def tern_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """TERN or TERAN. Without ``transformer_encoder_2`` the weights of the second encoder serve both modalities."""
    state = _rename(published, _TERN, _TERN_UNUSED)
    if not any(name.startswith("image_encoder.") for name in state):
        state |= {f"image_{name}": value for name, value in state.items() if name.startswith("encoder.")}
    return state


def vse_infty_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """VSE-infinity. With a BiGRU the published model has no map of words: ``vse_infty.word_map`` none."""
    return _rename(published, _VSE_INFTY, _VSE_INFTY_UNUSED)


def esa_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """ESA."""
    return _rename(published, _ESA, _VSE_INFTY_UNUSED)


def xdim_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """X-Dim. Its ``sim_eval``, which it never uses, is dropped."""
    state = _rename(published, _XDIM, _XDIM_UNUSED)
    flat = ("dimensions.alpha", "dimensions.log_tau", "dimensions.log_lambda")
    return {name: value.squeeze() if name in flat else value for name, value in state.items()}


def imram_state(published: Mapping[str, torch.Tensor], direction: str) -> Tensors:
    """IMRAM without its BiGRU. Of one direction the published file holds the other's memory too, which is dropped."""
    state, unused = _rename(published, _IMRAM), {"t2i": "region_memory.", "i2t": "word_memory."}.get(direction)
    return {name: value for name, value in state.items() if unused is None or not name.startswith(unused)}


def chan_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """CHAN, with BERT or a BiGRU."""
    return _rename(published, _CHAN, _CHAN_UNUSED)


def sgraf_state(published: Mapping[str, torch.Tensor]) -> Tensors:
    """SGR or SAF with a BiGRU as text encoder."""
    steps = {name.split(".")[2] for name in published if name.startswith("sim_enc.SGR_module.")}
    graph = {
        f"sim_enc.SGR_module.{step}.{part}": f"scorer.reasoning.steps.{step}.{ours}"
        for step in steps
        for part, ours in _SGRAF_STEP.items()
    }
    return _rename(published, _SGRAF | graph)


def split_state(published: Mapping[str, torch.Tensor], prefixes: Mapping[str, str]) -> tuple[Tensors, Tensors]:
    """The entries with one of these prefixes, which is replaced by ours, and all others."""
    state, rest = {}, {}
    for name, value in published.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            rest[name] = value
        else:
            state[prefixes[prefix] + name.removeprefix(prefix)] = value
    return state, rest


def _rename(
    published: Mapping[str, torch.Tensor], prefixes: Mapping[str, str], unused: tuple[str, ...] = ()
) -> Tensors:
    state, rest = split_state(published, prefixes)
    for name in rest:
        if not name.startswith(unused):
            raise UserError(f"checkpoint entry {name!r}: not part of the published model")
    return state
