"""Published weights of the bottom-up attention detector, renamed and reordered to detectron2's layout.

Two conversions of the Caffe models are in use. airsplay/py-bottom-up-attention (faster_rcnn_from_caffe*.pkl: a pickle
of NumPy arrays, and copies of it that torch saved) has detectron2's layout. MILVLG/bottom-up-attention.pytorch
(bua-caffe-frcn-r101-*.pth) keeps Caffe's: the background comes first and has a box of its own, deltas are not scaled,
the proposal layer has a logit for "nothing" and one for "something", and its anchors go ratio by ratio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.published.unpickle import read_array_pickle, read_checkpoint
from crossmodal.regions.bottomup.boxes import ANCHORS, RATIOS, REGRESSION_WEIGHTS, SIZES
from crossmodal.regions.bottomup.network import Architecture, architecture_of, expected_weights

_RPN, _BOX = "proposal_generator.rpn_head.", "roi_heads.box_predictor."
_CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"
# Counters of batch normalisation in training, and values that follow from the settings of a network.
_UNUSED = (".num_batches_tracked", "pixel_mean", "pixel_std", _CELL_ANCHORS)
_MILVLG_NAMES = {
    f"{_BOX}cls_embed.": f"{_BOX}cls_embedding.",
    f"{_BOX}attr_linear1.": f"{_BOX}fc_attr.",
    f"{_BOX}attr_linear2.": f"{_BOX}attr_score.",
}
_BACKGROUND_FIRST = (
    "cls_score.weight",
    "cls_score.bias",
    "cls_embed.weight",
    "attr_linear2.weight",
    "attr_linear2.bias",
)


def read_published(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Sizes and weights, float32, of a published file for ``BottomUpNetwork``.

    A .pkl file is read as a pickle of NumPy arrays, .safetensors as such, any other as written by ``torch.save``;
    nothing in it is run (see ``crossmodal.published.unpickle``).

    Raises:
        UserError: missing, damaged, or not such weights: names the file, and the entry that is missing, of another
            shape, unknown, or not finite.
    """
    read = {".safetensors": read_tensors, ".pkl": read_array_pickle}.get(path.suffix, read_checkpoint)
    state = _tensors(path, read(path))
    if _is_caffe_layout(state):
        state = _from_milvlg(path, state)
    state = {name: value for name, value in state.items() if not name.endswith(_UNUSED)}
    architecture = architecture_of(state, str(path))
    what = f"the bottom-up attention detector of depth {architecture.depth}"
    check_tensors(state, expected_weights(architecture), str(path), what)
    return architecture, state


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The entries that are weights, as float32 tensors; checkpoints hold them under "model"."""
    if isinstance(content, dict):
        content = content.get("model", content)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a dict of weights, found {type(content).__name__}")
    state = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray | Tensor) or name.endswith(_UNUSED[:1]):
            continue
        if not (value.dtype.kind == "f" if isinstance(value, np.ndarray) else value.is_floating_point()):
            raise UserError(f"{path}: {name!r} holds {value.dtype}, expected floats")
        if isinstance(value, np.ndarray):
            with np.errstate(over="ignore"):  # infinite values are refused later
                value = torch.from_numpy(value.astype(np.float32))
        state[name] = value.float().contiguous()
    return state


def _is_caffe_layout(state: dict[str, Tensor]) -> bool:
    """Whether boxes of the background are predicted too."""
    score, box = (state.get(f"{_BOX}{name}.bias") for name in ("cls_score", "bbox_pred"))
    return score is not None and box is not None and len(box) == 4 * len(score)


def _from_milvlg(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    order = _anchor_order(path, state)
    state = dict(state)
    for name in ("weight", "bias"):
        objectness, deltas = (state.get(f"{_RPN}{layer}.{name}") for layer in ("objectness_logits", "anchor_deltas"))
        if objectness is None or deltas is None or (len(objectness), len(deltas)) != (2 * ANCHORS, 4 * ANCHORS):
            raise UserError(f"{path}: '{_RPN}*.{name}': expected {2 * ANCHORS} logits and {4 * ANCHORS} deltas")
        nothing, something = objectness.view(2, ANCHORS, *objectness.shape[1:])
        state[f"{_RPN}objectness_logits.{name}"] = (something - nothing)[order]
        state[f"{_RPN}anchor_deltas.{name}"] = deltas.view(ANCHORS, 4, *deltas.shape[1:])[order].flatten(0, 1)
        boxes = state.get(f"{_BOX}bbox_pred.{name}")
        if boxes is None:
            raise UserError(f"{path}: lacks '{_BOX}bbox_pred.{name}'")
        boxes = boxes[4:].view(-1, 4, *boxes.shape[1:])
        factors = boxes.new_tensor(REGRESSION_WEIGHTS).view(1, 4, *[1] * (boxes.ndim - 2))
        state[f"{_BOX}bbox_pred.{name}"] = (boxes * factors).flatten(0, 1)
    for name in _BACKGROUND_FIRST:
        if f"{_BOX}{name}" in state:
            state[f"{_BOX}{name}"] = state[f"{_BOX}{name}"].roll(-1, dims=0)
    for published, ours in _MILVLG_NAMES.items():
        state = {name.replace(published, ours): value for name, value in state.items()}
    return {name: value.contiguous() for name, value in state.items()}


def _anchor_order(path: Path, state: dict[str, Tensor]) -> Tensor:
    """Index in the file of each of the anchors, which go size by size: (A,).

    By the anchors in the file, in any unit; without any, Caffe's order, ratio by ratio.
    """
    anchors = state.get(_CELL_ANCHORS)
    if anchors is None:
        return torch.arange(ANCHORS).view(len(RATIOS), len(SIZES)).T.flatten()
    if anchors.shape != (ANCHORS, 4):
        raise UserError(f"{path}: {_CELL_ANCHORS!r} is {tuple(anchors.shape)}, expected {(ANCHORS, 4)}")
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(dim=1)
    by_size = (width * height).argsort(stable=True).view(len(SIZES), len(RATIOS))
    return torch.cat([group[(height / width)[group].argsort(stable=True)] for group in by_size])
