"""How a training was run, as far as the machine decides: for the log and for MLflow."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn

from crossmodal.models.blocks import TransformerEncoder
from crossmodal.models.text import FineTunedBert
from crossmodal.training.loop import Trainer


@dataclass(frozen=True)
class Choices:
    """What a training used.

    precision: ``train.precision``, or fp32 where the machine has no instructions for that. tf32: whether products of
    float32 are computed in TF32. features: where region features are: host or device. attention: see
    ``attention_kernel``.
    """

    device: str
    precision: str
    tf32: bool
    features: str
    workers: int
    compiled: bool
    attention: str

    def tags(self) -> dict[str, str]:
        """By name, such as used.device."""
        return {f"used.{name}": str(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        attention = "" if self.attention == "none" else f"; attention kernel: {self.attention}"
        features = "kept on the device" if self.features == "device" else "read from their files"
        return (
            f"on {self.device} in {self.precision}{', the rest in tf32' * (self.tf32 and self.precision == 'bf16')}; "
            f"region features {features}; {self.workers or 'no'} loading process{'es' * (self.workers != 1)}; "
            f"torch.compile {'on' if self.compiled else 'off'}{attention}"
        )


def choices_of(trainer: Trainer) -> Choices:
    """What a trainer uses."""
    device = trainer.device
    return Choices(
        device=f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device),
        precision=trainer.precision,
        tf32=device.type != "cpu" and trainer.precision != "fp32",
        features="host" if trainer.data.on_device is None else "device",
        workers=trainer.workers,
        compiled=trainer.settings.compile,
        attention=attention_kernel(trainer.model, device),
    )


def attention_kernel(model: nn.Module, device: torch.device) -> str:
    """The kernel of a model's multi-head attention in training, with padding masked.

    math: plain products. efficient: one kernel, whose sums are in a fixed order under ``seed_everything``. torch: its
    choice. none: there is no such attention.
    """
    kinds = (TransformerEncoder, FineTunedBert, nn.MultiheadAttention)
    found = [part for part in model.modules() if isinstance(part, kinds)]
    if all(isinstance(part, TransformerEncoder) and not len(part.layers) for part in found):
        return "none"
    if device.type == "cpu":
        return "math" if any(isinstance(part, TransformerEncoder) and len(part.layers) for part in found) else "torch"
    return "efficient" if torch.backends.cuda.mem_efficient_sdp_enabled() else "math"
