"""The optimiser, with groups of parameters by learning rate and weight decay."""

from __future__ import annotations

import torch
from torch import nn

from crossmodal.models.base import Matcher
from crossmodal.settings.training import Train


def build_optimizer(
    model: Matcher, loss: nn.Module, settings: Train, *, text_lr: float, image_lr: float
) -> torch.optim.Optimizer:
    """Adam or AdamW; the model's biases and norms are decayed with ``decay_biases`` alone.

    Args:
        text_lr, image_lr: factors of the learning rates of ``model.text`` and ``model.image``.
    """
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    part = {id(parameter): name for name in ("text", "image") for parameter in getattr(model, name).parameters()}
    decayed = {id(parameter) for parameter in model.parameters() if settings.decay_biases or parameter.ndim > 1}
    decayed |= {id(parameter) for parameter in loss.parameters() if parameter.ndim > 1}
    trained = [parameter for parameter in (*model.parameters(), *loss.parameters()) if parameter.requires_grad]
    groups = []
    for name, factor in ((None, 1.0), ("text", text_lr), ("image", image_lr)):
        members, lr = [parameter for parameter in trained if part.get(id(parameter)) == name], settings.lr * factor
        groups += [
            {"params": [p for p in members if id(p) in decayed], "lr": lr, "weight_decay": settings.weight_decay},
            {"params": [p for p in members if id(p) not in decayed], "lr": lr, "weight_decay": 0.0},
        ]
    return kind([group for group in groups if group["params"]], lr=settings.lr, fused=True)
