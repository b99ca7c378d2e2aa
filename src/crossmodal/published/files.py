"""Files that other projects save: a checkpoint's tensors by their published names, and vocabularies.

Paranioar/SGRAF, woodfrog/vse_infty, KevinLight831/ESA, CrossmodalGroup/X-Dim, ppanzx/CHAN, HuiChen24/IMRAM,
mesnico/TERN and mesnico/TERAN save, with torch.save, a dict whose ``model`` is one state dict or a list of them (image,
text and similarity encoder), and the command line (``opt``) or the configuration (``config``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json
from crossmodal.published.state_dicts import Tensors
from crossmodal.published.unpickle import read_checkpoint, read_vocabulary_pickle


@dataclass(frozen=True)
class PublishedFile:
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


def read_published_file(path: Path) -> PublishedFile:
    """Read a checkpoint without the lists, the prefixes of data-parallel training and the nesting of the configuration.

    Raises:
        UserError: missing, unreadable, unsafe, or not what these projects save.
    """
    content = read_checkpoint(path)
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
    return PublishedFile(path, entries, settings)


def read_vocabulary(path: Path) -> list[str]:
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
