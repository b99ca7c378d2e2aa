"""The training step of published code, from a checkout that a person has made, for gpu_training.py.

    git clone -b python3.6 https://github.com/Paranioar/SGRAF
    git clone https://github.com/woodfrog/vse_infty

Their ``train_emb`` runs as it is, with its own model, loss, optimizer and reading of the loss in every step. Around it
there are a logger, BERT with random weights of the same sizes, which is not loaded from a hub, and on a CPU calls of
``.cuda()`` that leave a tensor where it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from transformers import BertConfig, BertModel

from crossmodal.batch import Words
from crossmodal.errors import UserError
from crossmodal.training.batches import PairBatch

FILES = {"sgraf": ("model.py", "class SGRAF("), "vse_infty": ("lib/vse.py", "class VSEModel(")}
TRAINING = {"grad_clip": 2.0, "margin": 0.2, "max_violation": True, "no_imgnorm": False, "no_txtnorm": False}
SGRAF = {"word_dim": 300, "num_layers": 1, "bi_gru": True, "sim_dim": 256, "sgr_step": 3, "learning_rate": 2e-4}
VSE = {"precomp_enc_type": "basic", "backbone_source": None, "backbone_path": None, "optim": "adam"}
VSE |= {"data_name": "f30k_precomp", "learning_rate": 5e-4}

Step = Callable[[], None]
Maker = Callable[[PairBatch], Step]


def kind_of(folder: Path) -> str:
    """Which of the two checkouts a folder is.

    Raises:
        UserError: neither.
    """
    for kind, (name, line) in FILES.items():
        path = folder / name
        if path.is_file() and line in path.read_text(encoding="utf-8", errors="replace"):
            return kind
    wanted = " or ".join(f"{name} with {line.rstrip('(')}" for name, line in FILES.values())
    raise UserError(f"--published {folder}: expected a checkout of SGRAF (branch python3.6) or vse_infty: {wanted}")


def published_steps(folder: Path, sizes: dict[str, Any], bert: dict[str, Any]) -> dict[str, Maker]:
    """By name of the row, what makes a step of a batch of token ids on the CPU.

    Args:
        sizes: embed_size, img_dim, vocab_size and, of SGRAF, word_dim and sim_dim where they are not the published.
        bert: of BertConfig.

    Raises:
        UserError: the folder is neither checkout, or does not import here.
    """
    kind = kind_of(folder)
    if kind == "vse_infty":
        return {"vse_infty, published": partial(_vse_step, folder, VSE | TRAINING | sizes, bert)}
    options = [SGRAF | TRAINING | sizes | {"module_name": name} for name in ("SGR", "SAF")]
    return {f"{part['module_name'].lower()}, published": partial(_sgraf_step, folder, part) for part in options}


def _sgraf_step(folder: Path, options: dict[str, Any], batch: PairBatch) -> Step:
    model = _imported(folder, "model").SGRAF(SimpleNamespace(**options))
    words, lengths = _captions(batch)
    order = torch.tensor(lengths).argsort(descending=True, stable=True)  # as its loader gives them
    images, lengths = batch.regions.features.float()[order], [lengths[row] for row in order]
    return _step(model, images, words[order], lengths)


def _vse_step(folder: Path, options: dict[str, Any], bert: dict[str, Any], batch: PairBatch) -> Step:
    module, encoders = _imported(folder, "lib.vse"), _imported(folder, "lib.encoders")
    random_bert = SimpleNamespace(from_pretrained=lambda name: BertModel(BertConfig(**bert)))
    with mock.patch.object(encoders, "BertModel", random_bert):
        model = module.VSEModel(SimpleNamespace(**options))
    words, lengths = _captions(batch)
    sizes = batch.regions.mask.sum(dim=1)
    return _step(model, batch.regions.features.float(), words, lengths, sizes)


def _captions(batch: PairBatch) -> tuple[torch.Tensor, list[int]]:
    """Token ids of all captions, (B, L), and their lengths."""
    longest = max(part.mask.shape[1] for part in batch.words)
    padded = [torch.nn.functional.pad(part.ids, (0, longest - part.ids.shape[1])) for part in batch.words]
    return torch.cat(padded), [length for part in batch.words for length in _lengths(part)]


def _lengths(words: Words) -> list[int]:
    return words.mask.sum(dim=1).tolist()


def _step(model: Any, *batch: Any) -> Step:
    model.logger = SimpleNamespace(update=lambda *values: None)
    model.train_start()
    gpu = torch.cuda.is_available()
    if not gpu:
        loss = model.criterion.forward

        def with_mask(*values: torch.Tensor) -> torch.Tensor:  # SGRAF's has no mask of the diagonal without a GPU
            with mock.patch("torch.cuda.is_available", return_value=True):
                return loss(*values)

        model.criterion.forward = with_mask

    def step() -> None:
        with ExitStack() as stack:
            if not gpu:
                stack.enter_context(mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor))
            model.train_emb(*batch)

    return step


def _imported(folder: Path, name: str) -> ModuleType:
    """A module of a checkout, and none of another checkout under the same name."""
    with _on_path(folder):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--published {folder}: {name} does not import: {error}") from None


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    known = sys.modules.get("model"), sys.modules.get("lib")
    for module in known:
        if module is not None and not str(module.__file__).startswith(str(folder.resolve())):
            del sys.modules[module.__name__]
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
