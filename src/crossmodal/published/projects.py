"""The checkpoints of each project as a matcher of this one.

Sizes are read from the shapes, what shapes do not tell from the settings in the file, names are changed by
``state_dicts``. A BERT in the file is kept as the matcher's text encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from crossmodal.published import state_dicts
from crossmodal.published.files import PublishedFile
from crossmodal.published.state_dicts import Tensors, split_state

BERT_HEAD = 64  # size of an attention head in every published BERT; a state dict does not tell


@dataclass(frozen=True)
class Text:
    """The text encoder in a file: ``captions.encoder``, its settings, its weights, and its feature size."""

    encoder: str
    settings: dict[str, Any]
    size: int
    state: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A matcher in a file: the model, its settings, its text encoder, its weights by our names."""

    model: str
    settings: dict[str, Any]
    text: Text
    state: Tensors


def _tern(published: PublishedFile) -> Part:
    """TERN: ``img_txt_enc.*``."""
    settings, text, state = _tern_encoders(published)
    return Part("tern", {**settings, "image_aggregation": "cls", "text_aggregation": "cls"}, text, state)


def _teran(published: PublishedFile) -> Part:
    """TERAN: TERN's encoders; the name of its alignment is in ``config`` alone."""
    published.require("training.loss-type", ["alignment"])
    published.require("model.exclude-stopwords", [False])
    settings, text, state = _tern_encoders(published)
    alignment = str(published.settings.get("training.alignment-mode", "MrSw")).replace("-", "_")
    return Part("teran", {**settings, "alignment": alignment, "last_tokens": 2}, text, state)


def _tern_encoders(published: PublishedFile) -> tuple[dict[str, Any], Text, Tensors]:
    for part in ("text", "image"):
        published.require(f"model.{part}-aggregation", ["first"])
    published.require("training.measure", ["dot", "cosine"])
    published.require("image-model.pos-encoding", ["concat-and-process"])
    text, rest = _bert(published, "img_txt_enc.txt_enc.bert_model.")
    encoder = "img_txt_enc.transformer_encoder_1.layers."
    settings = {
        "embed_dim": published.size("img_txt_enc.cap_proj.weight"),
        "visual_dim": published.size("img_txt_enc.img_proj.weight", 1),
        "visual_layers": published.layers("img_txt_enc.img_enc.transformer_encoder.layers."),
        "text_layers": published.layers("img_txt_enc.txt_enc.transformer_encoder.layers."),
        "layers": published.layers(encoder),
        "heads": 4,  # fixed in the published code
        "feed_forward": published.size(f"{encoder}0.linear1.weight"),
        "shared": not published.layers("img_txt_enc.transformer_encoder_2.layers."),
        "layers_start": "copies",
        "positions": "concat",
        "location_scale": 1.0,
        "dropout": published.settings.get("model.dropout", 0.1),
    }
    text = text or Text("bert", {}, published.size("img_txt_enc.cap_proj.weight", 1))
    return settings, text, state_dicts.tern_state(rest)


def _sgraf(published: PublishedFile) -> Part:
    """SGR or SAF: ``img_enc.*``, ``txt_enc.*`` and ``sim_enc.*``; words by a BiGRU."""
    _require_norms(published)
    published.require("num_layers", [1])
    text, _ = _bigru(published, published.entries, "txt_enc.embed.", "txt_enc.cap_rnn.", dropout=0.4)
    steps = published.layers("sim_enc.SGR_module.")
    settings = {
        "module": "sgr" if steps else "saf",
        "embed_dim": published.size("img_enc.fc.weight"),
        "sim_dim": published.size("sim_enc.sim_tranloc_w.weight"),
        "sgr_steps": steps or 3,
        "lambda_softmax": 9.0,  # this, the dropout and the word embeddings' are fixed in the published code
        "word_map": "none",
        "region_norms": published.size("sim_enc.v_global_w.embedding_local.1.weight"),
        "dropout": 0.4,
        "similarity_dropout": 0.0,
        "precision": "fp32",
    }
    state = state_dicts.sgraf_state(published.entries)  # with the text encoder's
    return Part("sgraf", settings, replace(text, state={}), state)


def _vse_infty(published: PublishedFile) -> Part:
    """VSE-infinity on region features, with BERT or a BiGRU."""
    settings, text, rest = _mapped_regions(published, bigru=True)
    settings |= {
        "pe_dim": published.size("img_enc.gpool.gru.weight_ih_l0", 1),
        "pool_hidden": published.size("img_enc.gpool.gru.weight_hh_l0", 1),
        "temperature": 0.1,  # fixed in the published code
    }
    return Part("vse_infty", settings, text, state_dicts.vse_infty_state(rest))


def _esa(published: PublishedFile) -> Part:
    """ESA on region features; a tenth is dropped of BERT's mapped words, or of a BiGRU's embeddings."""
    settings, text, rest = _mapped_regions(published, bigru=True)
    dropout = 0.1  # fixed in the published code
    if text.encoder == "bigru":
        text, dropout = replace(text, settings=text.settings | {"dropout": dropout}), 0.0
    return Part("esa", settings | {"dropout": dropout}, text, state_dicts.esa_state(rest))


def _xdim(published: PublishedFile) -> Part:
    """X-Dim on region features, with BERT; third in the file are its similarity's weights."""
    settings, text, rest = _mapped_regions(published)
    return Part("xdim", settings, text, state_dicts.xdim_state(rest))


def _imram(published: PublishedFile) -> Part:
    """IMRAM, with its BiGRU; direction and number of steps are in ``opt`` alone."""
    directions = {"full_IMRAM": "both", "text_IMRAM": "t2i", "image_IMRAM": "i2t"}
    published.require("model_mode", directions)
    published.require("precomp_enc_type", ["basic"])
    published.require("raw_feature_norm", ["clipped_l2norm"])
    published.require("no_IMRAM_norm", [True])  # of the queries between two steps, which its scripts leave out
    published.require("num_layers", [1])
    _require_norms(published)
    text, rest = _bigru(published, published.entries, "txt_enc.embed.", "txt_enc.rnn.", dropout=0.0)
    settings = {
        "embed_dim": published.size("img_enc.fc_local.weight"),
        "direction": directions[published.settings.get("model_mode", "full_IMRAM")],
        "steps": published.settings.get("iteration_step", 3),
        "lambda_softmax": published.settings.get("lambda_softmax", 9.0),
        "word_map": "none",
    }
    return Part("imram", settings, text, state_dicts.imram_state(rest, settings["direction"]))


def _chan(published: PublishedFile) -> Part:
    """CHAN: ``img_enc.*`` and ``txt_enc.*``, with BERT or a BiGRU; coding and pooling are in ``opt`` alone."""
    codings = {"VHACoding": "visual", "THACoding": "textual"}
    pools = {"MeanPooling": "mean", "LSEPooling": "lse", "MaxPooling": "max", "SumPooling": "sum"}
    published.require("precomp_enc_type", ["basic", "selfattention"])
    published.require("coding_type", codings)
    published.require("pooling_type", pools)
    _require_norms(published)
    text, rest = _bert(published, "txt_enc.bert.")
    if text is None and "txt_enc.embed.weight" in rest:
        text, rest = _bigru(published, rest, "txt_enc.embed.", "txt_enc.rnn.", dropout=0.0)
    bigru, attends = text is not None and text.encoder == "bigru", "img_enc.feedforward.ln.weight" in rest
    pooling = published.settings.get("pooling_type", "LSEPooling" if bigru else "MeanPooling")
    settings = {
        "embed_dim": published.size("img_enc.fc.weight"),
        "attention_heads": 8 if attends else 0,  # fixed in the published code
        "word_map": "none" if bigru else "linear",
        "coding": codings[published.settings.get("coding_type", "VHACoding")],
        "pool": pools[pooling],
        "temperature": published.settings.get("belta", 0.1),
    }
    text = text or Text("bert", {}, published.size("txt_enc.linear.weight", 1))
    return Part("chan", settings, text, state_dicts.chan_state(rest))


def _mapped_regions(published: PublishedFile, *, bigru: bool = False) -> tuple[dict[str, Any], Text, Tensors]:
    """The maps of ``img_enc.*`` and ``txt_enc.*``, the text encoder, and all other entries."""
    published.require("precomp_enc_type", ["basic"])  # "backbone" trains a CNN on pixels with the model
    _require_norms(published)
    text, rest = _bert(published, "txt_enc.bert.")
    if bigru and text is None and "txt_enc.embed.weight" in rest:
        text, rest = _bigru(published, rest, "txt_enc.embed.", "txt_enc.rnn.", dropout=0.0)
    settings = {
        "embed_dim": published.size("img_enc.fc.weight"),
        "word_map": "none" if text is not None and text.encoder == "bigru" else "linear",
        "mlp_hidden": published.size("img_enc.mlp.layers.0.weight") if published.layers("img_enc.mlp.layers.") else 0,
        "norm_padding": True,
    }
    return settings, text or Text("bert", {}, published.size("txt_enc.linear.weight", 1)), rest


def _bert(published: PublishedFile, prefix: str) -> tuple[Text | None, Tensors]:
    """The BERT whose names begin with ``prefix``, None if the features were stored, and all other entries.

    Its pooler, which no matcher reads, and buffers that newer releases compute are dropped.
    """
    bert, rest = split_state(published.entries, {prefix: ""})
    if not bert:
        return None, rest
    embeddings = f"{prefix}embeddings."
    vocabulary, hidden = (published.size(f"{embeddings}word_embeddings.weight", dimension) for dimension in (0, 1))
    config = {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": published.layers(f"{prefix}encoder.layer."),
        "num_attention_heads": max(1, hidden // BERT_HEAD),
        "intermediate_size": published.size(f"{prefix}encoder.layer.0.intermediate.dense.weight"),
        "max_position_embeddings": published.size(f"{embeddings}position_embeddings.weight"),
        "type_vocab_size": published.size(f"{embeddings}token_type_embeddings.weight"),
    }
    dropped = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")
    state = {f"bert.{name}": value for name, value in bert.items() if not name.startswith(dropped)}
    return Text("bert_finetune", {"config": config}, hidden, state), rest


def _bigru(published: PublishedFile, entries: Tensors, embed: str, rnn: str, dropout: float) -> tuple[Text, Tensors]:
    """The word embeddings and the BiGRU, by their prefixes, and all other entries."""
    state, rest = split_state(entries, {embed: "embed.", rnn: "rnn."})
    settings = {
        "vocabulary": published.size(f"{embed}weight"),
        "embed_dim": published.size(f"{embed}weight", 1),
        "hidden": published.size(f"{rnn}weight_hh_l0", 1),
        "dropout": dropout,
    }
    published.size(f"{rnn}weight_hh_l0_reverse")  # a GRU of one direction only is another model
    return Text("bigru", settings, settings["hidden"], state), rest


def _require_norms(published: PublishedFile) -> None:
    for key in ("no_imgnorm", "no_txtnorm"):
        published.require(key, [False])


PROJECTS: dict[str, Callable[[PublishedFile], Part]] = {
    "sgraf": _sgraf,
    "vse_infty": _vse_infty,
    "esa": _esa,
    "xdim": _xdim,
    "chan": _chan,
    "imram": _imram,
    "tern": _tern,
    "teran": _teran,
}
