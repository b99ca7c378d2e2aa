"""State dicts of the published implementations, renamed to this project's."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from crossmodal.errors import UserError

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
# Maps of the published encoders whose outputs the published models never use, and BERT, which is a stage here.
_TERN_UNUSED = ("img_txt_enc.txt_enc.map.", "img_txt_enc.img_enc.fc.", "img_txt_enc.txt_enc.bert_model.")

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

# CrossmodalGroup/X-Dim: published prefix -> ours, but for four weights of another shape
_XDIM = {name: ours for name, ours in _VSE_INFTY.items() if "gpool" not in name}
_XDIM_SIMILARITY = {
    "weights": "joint",  # (E, E)
    "sim_map": "alpha",  # (1, E) -> (E,)
    "temp_learnable": "log_tau",  # (1, 1) -> ()
    "temp_scale": "log_lambda",
}

# ppanzx/CHAN: published prefix -> ours
_CHAN = {
    "img_enc.fc.": "image_map.",
    "img_enc.feedforward.ln.": "attention.norm.",
    "img_enc.feedforward.attn.": "attention.attention.",
    "txt_enc.linear.": "caption_map.",
}
_CHAN_UNUSED = ("txt_enc.fc.",)  # a map that the published BiGRU encoder has and never applies

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


def tern_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """TERN's or TERAN's published state dict under the names of ``TernMatcher``.

    A checkpoint without ``transformer_encoder_2`` shares the second encoder: its weights serve both names.

    Raises:
        UserError: an entry that neither implementation has.
    """
    state = _rename(published, _TERN, _TERN_UNUSED)
    if not any(name.startswith("image_encoder.") for name in state):
        encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
        state |= {f"image_{name}": value for name, value in encoder.items()}
    return state


def vse_infty_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VSE-infinity's published state dict under the names of ``VseInftyMatcher``.

    With a BiGRU the published model has no map of words: ``vse_infty.word_map`` none.

    Raises:
        UserError: an entry that the published model does not have.
    """
    return _rename(published, _VSE_INFTY, _VSE_INFTY_UNUSED)


def esa_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ESA's published state dict under the names of ``EsaMatcher``.

    Raises:
        UserError: an entry that the published model does not have.
    """
    return _rename(published, _ESA, _VSE_INFTY_UNUSED)


def xdim_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """X-Dim's published state dict under the names of ``XdimMatcher``; ``sim_eval``, which it never uses, is dropped.

    Raises:
        UserError: an entry that the published model does not have.
    """
    encoders, dimensions = {}, {}
    for name, value in published.items():
        part, entry, *_ = name.split(".")
        if part not in ("sim_vec", "sim_enc"):  # a file's third state dict is read as sim_enc
            encoders[name] = value
        elif entry in _XDIM_SIMILARITY:
            dimensions[f"dimensions.{_XDIM_SIMILARITY[entry]}"] = value if entry == "weights" else value.squeeze()
        elif entry != "sim_eval":
            raise UserError(f"checkpoint entry {name!r}: not part of the published model")
    return _rename(encoders, _XDIM, _VSE_INFTY_UNUSED) | dimensions


def chan_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CHAN's published state dict under the names of ``ChanMatcher``.

    Raises:
        UserError: an entry that the published model does not have.
    """
    return _rename(published, _CHAN, _CHAN_UNUSED)


def sgraf_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published state dict of SGR or SAF under the names of ``SgrafMatcher`` with a BiGRU as text encoder.

    Raises:
        UserError: an entry that the published model does not have.
    """
    steps = {name.split(".")[2] for name in published if name.startswith("sim_enc.SGR_module.")}
    graph = {
        f"sim_enc.SGR_module.{step}.{part}": f"scorer.reasoning.steps.{step}.{ours}"
        for step in steps
        for part, ours in _SGRAF_STEP.items()
    }
    return _rename(published, _SGRAF | graph, ())


def _rename(
    published: Mapping[str, torch.Tensor], prefixes: Mapping[str, str], unused: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in published.items():
        if name.startswith(unused):
            continue
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            raise UserError(f"checkpoint entry {name!r}: not part of the published model")
        state[prefixes[prefix] + name.removeprefix(prefix)] = value
    return state
