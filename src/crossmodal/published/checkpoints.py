"""Published checkpoints as matchers of this project.

Paranioar/SGRAF, woodfrog/vse_infty, KevinLight831/ESA, CrossmodalGroup/X-Dim, ppanzx/CHAN, mesnico/TERN and
mesnico/TERAN save, with torch.save, a dict whose ``model`` is one state dict or a list of them (image, text and
similarity encoder), and the command line (``opt``) or the configuration (``config``). Sizes are read from the shapes,
what shapes do not tell from ``opt`` or ``config``, names are changed by ``published.state_dicts``. A BERT in the file
is kept as the matcher's text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.checkpoint import MatcherConfig, build_checked
from crossmodal.published import state_dicts
from crossmodal.published.state_dicts import Tensors, split_state
from crossmodal.published.unpickle import read_checkpoint, read_vocabulary_pickle

BERT_HEAD = 64  # size of an attention head in every published BERT; a state dict does not tell


@dataclass(frozen=True)
class Published:
    """A file's content. ``entries``: every tensor by its published name, the encoder's in front.

    ``settings``: ``opt`` flat, or ``config`` as ``section.key``; empty where the file has neither.
    """

    path: Path
    entries: Tensors
    settings: dict[str, Any]

    def size(self, name: str, dimension: int = 0) -> int:
        """A dimension of an entry; a UserError where there is none: the file is another project's."""
        if name not in self.entries or self.entries[name].ndim <= dimension:
            raise UserError(f"{self.path}: has no entry {name!r}; is it a checkpoint of the project that --from names?")
        return self.entries[name].shape[dimension]

    def layers(self, prefix: str) -> int:
        """Number of layers whose names begin with ``prefix`` and a number."""
        names = (name.removeprefix(prefix) for name in self.entries if name.startswith(prefix))
        return len({name.split(".")[0] for name in names})

    def require(self, key: str, allowed: Collection[Any]) -> None:
        """Refuse, by a UserError, a setting that changes the published mathematics; none in the file is the default."""
        value = self.settings.get(key)
        plain = isinstance(value, str | bool | int | float | None)  # a tensor cannot be compared
        if key in self.settings and (not plain or value not in allowed):
            values = " or ".join(repr(value) for value in allowed)
            raise UserError(f"{self.path}: {key} is {repr(value)[:100]}, only {values} can be imported")


@dataclass(frozen=True)
class Text:
    """The text encoder in a file: ``captions.encoder``, its settings, its weights, and its feature size."""

    encoder: str
    settings: dict[str, Any]
    size: int
    state: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A matcher in evaluation mode, what ``save_matcher`` takes, and its words by id (None with BERT)."""

    model: Matcher
    config: MatcherConfig
    words: list[str] | None


def import_checkpoint(project: str, paths: Sequence[Path], vocabulary: Path | None, key: str) -> Imported:
    """Read a published checkpoint, or SGRAF's two, whose scores are averaged.

    Args:
        project: one of PROJECTS.
        paths: what the project's train.py saved; an SGR and a SAF make an SGRAF.
        vocabulary: the project's vocabulary, JSON or pickle, where its words are embedded by a BiGRU.
        key: for MatcherConfig.

    Raises:
        UserError: a file is missing, unreadable, unsafe, or not of this project; a variant that has no
            counterpart here; the vocabulary does not belong to the checkpoint; two files that are no pair.
    """
    files = [_flat(path, read_checkpoint(path)) for path in paths]
    parts = [PROJECTS[project](published) for published in files]
    name, settings, text, state = parts[0] if len(parts) == 1 else _pair(project, files, parts)
    words = _words(files[0], text, vocabulary, project)
    sizes = InputSizes(regions=_region_size(files[0]), words=text.size)
    config = MatcherConfig(name, settings, sizes, key, text.encoder, text.settings)
    weights = state | {f"text.{entry}": value for entry, value in text.state.items()}
    model = build_checked(config, weights, paths[0], paths[0])
    model.load_state_dict(weights, strict=False)
    return Imported(model.eval(), config, words)


Part = tuple[str, dict[str, Any], Text, Tensors]  # model, its settings, its text encoder, its weights


def _pair(project: str, files: list[Published], parts: list[Part]) -> Part:
    """SGRAF of an SGR and a SAF that differ in nothing else."""
    parts = sorted(parts, key=lambda part: part[1].get("module") != "sgr")
    if project != "sgraf" or [part[1]["module"] for part in parts] != ["sgr", "saf"]:
        raise UserError(f"{files[1].path}: two files make a model only where one is SGRAF's SGR and the other its SAF")
    (name, settings, text, sgr), (_, other, other_text, saf) = parts
    ignored = {"module", "sgr_steps"}
    unlike = [k for k in settings.keys() - ignored if settings[k] != other[k]]
    if unlike or text != other_text or _region_size(files[0]) != _region_size(files[1]):
        raise UserError(f"{files[1].path}: differs from {files[0].path} in {min(unlike, default='its inputs')}")
    state = {f"matchers.{number}.{k}": v for number, member in enumerate((sgr, saf)) for k, v in member.items()}
    return name, {**settings, "module": "sgraf"}, text, state


def _tern(published: Published) -> Part:
    """TERN: ``img_txt_enc.*``."""
    settings, text, state = _tern_encoders(published)
    return "tern", {**settings, "image_aggregation": "cls", "text_aggregation": "cls"}, text, state


def _teran(published: Published) -> Part:
    """TERAN: TERN's encoders; the name of its alignment is in ``config`` alone."""
    published.require("training.loss-type", ["alignment"])
    published.require("model.exclude-stopwords", [False])
    settings, text, state = _tern_encoders(published)
    alignment = str(published.settings.get("training.alignment-mode", "MrSw")).replace("-", "_")
    return "teran", {**settings, "alignment": alignment}, text, state


def _tern_encoders(published: Published) -> tuple[dict[str, Any], Text, Tensors]:
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
        "input_dropout": 0.0,
        "dropout": published.settings.get("model.dropout", 0.1),
    }
    text = text or Text("bert", {}, published.size("img_txt_enc.cap_proj.weight", 1))
    return settings, text, state_dicts.tern_state(rest)


def _sgraf(published: Published) -> Part:
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
    return "sgraf", settings, replace(text, state={}), state


def _vse_infty(published: Published) -> Part:
    """VSE-infinity on region features, with BERT or a BiGRU."""
    settings, text, rest = _mapped_regions(published, bigru=True)
    settings |= {
        "pe_dim": published.size("img_enc.gpool.gru.weight_ih_l0", 1),
        "pool_hidden": published.size("img_enc.gpool.gru.weight_hh_l0", 1),
        "temperature": 0.1,  # fixed in the published code
    }
    return "vse_infty", settings, text, state_dicts.vse_infty_state(rest)


def _esa(published: Published) -> Part:
    """ESA on region features; a tenth is dropped of BERT's mapped words, or of a BiGRU's embeddings."""
    settings, text, rest = _mapped_regions(published, bigru=True)
    dropout = 0.1  # fixed in the published code
    if text.encoder == "bigru":
        text, dropout = replace(text, settings=text.settings | {"dropout": dropout}), 0.0
    return "esa", settings | {"dropout": dropout}, text, state_dicts.esa_state(rest)


def _xdim(published: Published) -> Part:
    """X-Dim on region features, with BERT; third in the file are its similarity's weights."""
    settings, text, rest = _mapped_regions(published)
    return "xdim", settings, text, state_dicts.xdim_state(rest)


def _chan(published: Published) -> Part:
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
    return "chan", settings, text, state_dicts.chan_state(rest)


def _mapped_regions(published: Published, *, bigru: bool = False) -> tuple[dict[str, Any], Text, Tensors]:
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


PROJECTS: dict[str, Callable[[Published], Part]] = {
    "sgraf": _sgraf,
    "vse_infty": _vse_infty,
    "esa": _esa,
    "xdim": _xdim,
    "chan": _chan,
    "tern": _tern,
    "teran": _teran,
}


def _flat(path: Path, content: Any) -> Published:
    """Undo the lists, the prefixes of data-parallel training, and the nesting of the configuration."""
    if not isinstance(content, Mapping) or "model" not in content:
        raise UserError(f"{path}: has no 'model'; expected the dict that the project's train.py saves")
    model = content["model"]
    parts = {"": model}
    if isinstance(model, list | tuple):
        parts = dict(zip(("img_enc.", "txt_enc.", "sim_enc."), model, strict=False))
    entries = {}
    for part, state in parts.items():
        if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
        ):
            raise UserError(f"{path}: 'model' is neither a state dict nor a list of them")
        for name, value in state.items():
            entries[part + name.removeprefix("module.")] = value.float() if value.is_floating_point() else value
    settings = dict(vars(content["opt"])) if hasattr(content.get("opt"), "__dict__") else {}
    config = content.get("config")
    for section, values in config.items() if isinstance(config, Mapping) else ():
        settings |= {f"{section}.{key}": value for key, value in values.items()} if isinstance(values, Mapping) else {}
    return Published(path, entries, settings)


def _region_size(published: Published) -> int:
    """Size of a region's features: inputs of the first map, without the five values of its position."""
    for name, position in (("img_enc.fc.weight", 0), ("img_txt_enc.img_enc.pos_encoding_image.map.0.weight", 5)):
        if name in published.entries:
            return published.size(name, 1) - position
    raise UserError(f"{published.path}: has no map of region features; is it a checkpoint of the project named?")


def _bert(published: Published, prefix: str) -> tuple[Text | None, Tensors]:
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


def _bigru(published: Published, entries: Tensors, embed: str, rnn: str, dropout: float) -> tuple[Text, Tensors]:
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


def _require_norms(published: Published) -> None:
    for key in ("no_imgnorm", "no_txtnorm"):
        published.require(key, [False])


def _words(published: Published, text: Text, vocabulary: Path | None, project: str) -> list[str] | None:
    """The words of a BiGRU's vocabulary by id."""
    if text.encoder != "bigru":
        if vocabulary:
            raise UserError(f"{vocabulary}: not needed, {published.path} reads captions with BERT, not a vocabulary")
        return None
    if vocabulary is None:
        raise UserError(f"{published.path}: embeds words of its own: give the project's vocabulary by --vocabulary")
    words, rows = read_words(vocabulary), text.settings["vocabulary"]
    if project in ("vse_infty", "esa", "chan") and len(words) == rows - 1:
        words.append("<mask>")  # its train.py adds one to the vocabulary file's
    if len(words) != rows:
        raise UserError(f"{vocabulary}: has {len(words)} words, {published.path} embeds {rows}")
    return words


def read_words(path: Path) -> list[str]:
    """A published vocabulary's words, each at the index of its id.

    The JSON of SGRAF, VSE-infinity and CHAN holds ``word2idx`` and ``idx2word``; older files are pickles of the same.

    Raises:
        UserError: missing, unreadable, or ids that are not 0, 1, 2 ... each once.
    """
    content = read_json(path) if path.suffix == ".json" else read_vocabulary_pickle(path)
    ids = content.get("word2idx") if isinstance(content, dict) else None
    if not isinstance(ids, dict):
        raise UserError(f"{path}: not a published vocabulary (no word2idx)")
    if sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str) or not all(isinstance(w, str) for w in ids):
        raise UserError(f"{path}: not a published vocabulary (ids are not 0 to {len(ids) - 1}, each once)")
    return sorted(ids, key=ids.__getitem__)
