"""The training loop: a loss on the similarity matrix, best epoch by validation rsum, resumable.

Whole of it: for every epoch, every batch of image-caption pairs is encoded, scored and stepped; the epoch
ends with the recalls on the validation split. State goes to disk after every epoch and every few minutes
within one, so that a killed run goes on and ends with the weights an undisturbed run would have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import flat, i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.features.store import FeatureStore
from crossmodal.losses import PairLoss
from crossmodal.models.base import Matcher
from crossmodal.params import Loss, Train
from crossmodal.retrieval.similarity import similarity_matrix
from crossmodal.runtime import progress
from crossmodal.training.batches import EpochBatches, PairBatch, load_batches
from crossmodal.training.schedule import Schedule

SAVE_SECONDS = 300
LOG_EVERY = 10  # optimiser steps


@dataclass(frozen=True)
class TrainingData:
    """Stores and splits. ``caption_image``: image row of every caption of the caption store."""

    regions: FeatureStore
    words: FeatureStore
    caption_image: np.ndarray
    train: Split
    val: Split


@dataclass
class TrainingState:
    """What a run has come to: everything beside model, optimiser and schedule that a resumed run needs."""

    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best_rsum: float = -math.inf
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    run_id: str | None = None


Report = Callable[[dict[str, float], int], None]


class Trainer:
    """Trains one matcher.

    Args:
        model: on its device; trained in place, holds the best epoch's weights after ``fit``.
        settings, loss, seed: of params.yaml.
        resume: folder of the state, taken up when it holds one.
        text_lr: factor of the learning rate of ``model.text``.
    """

    def __init__(
        self,
        model: Matcher,
        data: TrainingData,
        settings: Train,
        loss: Loss,
        seed: int,
        *,
        resume: Path,
        text_lr: float = 1.0,
    ) -> None:
        self.model, self.data, self.settings, self.seed = model, data, settings, seed
        self.device = next(model.parameters()).device
        self.loss = PairLoss(loss).to(self.device)
        self.state = TrainingState()
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.optimizer = _optimizer(model, self.loss, settings, text_lr)
        self.batches_per_epoch = len(self._epoch(0))
        self.schedule = Schedule(self.optimizer, settings, math.ceil(self.batches_per_epoch / settings.accumulate))
        self._state_path = resume / "state.pt"
        self._saved_at = time.monotonic()
        if self._state_path.is_file():
            self._load()

    def fit(self, report: Report) -> list[dict[str, float]]:
        """Train to the last epoch, or until ``patience`` runs out.

        Args:
            report: called with metrics and the optimiser step they belong to.

        Returns:
            One row per epoch: epoch (from 1), loss per pair, lr, and the validation metrics.

        Raises:
            UserError: the loss is no longer finite.
        """
        while self.state.epoch < self.settings.epochs and not self._out_of_patience():
            loss = self._train_epoch(self.state.epoch, report)
            metrics = validate(self.model, self.data, self.settings.batch_size)
            self.schedule.end_epoch(metrics["rsum"])
            if metrics["rsum"] > self.state.best_rsum:
                self.state.best_rsum, self.state.best_epoch = metrics["rsum"], self.state.epoch
                self.best_weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            row = {"epoch": self.state.epoch + 1, "loss": loss, "lr": self.schedule.lr, **flat(metrics)}
            self.state.history.append(row)
            report({f"val/{name}": value for name, value in flat(metrics).items()}, self.schedule.steps)
            self.state.epoch, self.state.batch, self.state.loss_sum = self.state.epoch + 1, 0, 0.0
            self._save()
        self.model.load_state_dict(self.best_weights)
        return self.state.history

    def _train_epoch(self, epoch: int, report: Report) -> float:
        """Mean loss per pair of the epoch, the part before a kill included."""
        settings, state = self.settings, self.state
        batches = self._epoch(epoch)
        loader = load_batches(batches, first=state.batch, workers=settings.workers, pinned=self.device.type == "cuda")
        size = len(batches.batches[0])
        bar = progress(
            total=len(batches) * size,
            initial=state.batch * size,
            desc=f"epoch {epoch + 1}/{settings.epochs}",
            unit="sample",
            unit_scale=True,
        )
        self.model.train()
        started, seen = time.monotonic(), 0
        for batch in loader:
            loss = self._loss(batch, epoch)
            value = loss.item() / size
            if not math.isfinite(value):
                raise UserError(
                    f"train.lr {settings.lr}: the loss is no longer finite in epoch {epoch + 1}; "
                    "a lower train.lr, train.clip or precision fp32 may help"
                )
            loss.backward()
            state.batch += 1
            state.loss_sum += value
            seen += size
            if state.batch % settings.accumulate == 0 or state.batch == len(batches):
                self._step()
                if self.schedule.steps % LOG_EVERY == 0:
                    rate = seen / (time.monotonic() - started)
                    report(
                        {"train/loss": value, "train/lr": self.schedule.lr, "train/samples_per_second": rate},
                        self.schedule.steps,
                    )
                if time.monotonic() - self._saved_at > SAVE_SECONDS and state.batch < len(batches):
                    self._save()
            bar.update(size)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
        bar.close()
        return state.loss_sum / len(batches)

    def _loss(self, batch: PairBatch, epoch: int) -> torch.Tensor:
        image_of = batch.image_of.to(self.device)
        with self._autocast():
            images, captions = self.model(
                batch.regions.to(self.device), [words.to(self.device) for words in batch.words]
            )
        scores = [self.model.similarity(images.float(), part.float()) for part in captions]
        similarity = torch.cat(scores, dim=1)[image_of]  # (N, B) to (B, B), the pairs on the diagonal
        return self.loss(similarity, image_of, epoch)

    def _autocast(self) -> Any:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _step(self) -> None:
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()

    def _epoch(self, epoch: int) -> EpochBatches:
        return EpochBatches(
            self.data.regions,
            self.data.words,
            self.data.train.captions,
            self.data.caption_image,
            batch_size=self.settings.batch_size,
            captions_per_image=self.settings.captions_per_image,
            neighbours=self.settings.neighbours,
            seed=self.seed,
            epoch=epoch,
            region_dropout=self.settings.region_dropout,
            word_dropout=self.settings.word_dropout,
        )

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and self.state.epoch - 1 - self.state.best_epoch >= patience

    def _save(self) -> None:
        """Whole state under a temporary name, then renamed. Gradients are not kept: saved between steps."""
        part = self._state_path.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "loss": self.loss.state_dict(),
                "best": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "progress": vars(self.state),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            },
            part,
        )
        part.replace(self._state_path)
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self._state_path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.best_weights = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.state = TrainingState(**state["progress"])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])


def fit_in_turn(trainers: list[Trainer], report: Report) -> list[dict[str, float]]:
    """Train the members of a model one after the other; epochs and steps are counted on."""
    history: list[dict[str, float]] = []
    steps = 0
    for trainer in trainers:
        rows = trainer.fit(lambda metrics, step, before=steps: report(metrics, before + step))
        history += [{**row, "epoch": row["epoch"] + len(history)} for row in rows]
        steps += trainer.schedule.steps
    return history


def validate(model: Matcher, data: TrainingData, batch_size: int) -> dict[str, Any]:
    """Retrieval metrics of the validation split (see evaluation.metrics.retrieval_metrics)."""
    val = data.val
    similarity = similarity_matrix(model, data.regions, val.images, data.words, val.captions, batch_size)
    return retrieval_metrics(i2t_ranks(similarity, val.caption_image), t2i_ranks(similarity, val.caption_image))


def _optimizer(model: Matcher, loss: PairLoss, settings: Train, text_lr: float) -> torch.optim.Optimizer:
    """Adam or AdamW; biases and norms are not decayed by AdamW's weight decay."""
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    text = {id(parameter) for parameter in model.text.parameters()}
    trained = [parameter for parameter in (*model.parameters(), *loss.parameters()) if parameter.requires_grad]
    groups = []
    for own, lr in ((False, settings.lr), (True, settings.lr * text_lr)):
        members = [parameter for parameter in trained if (id(parameter) in text) == own]
        groups += [
            {"params": [p for p in members if p.ndim > 1], "lr": lr, "weight_decay": settings.weight_decay},
            {"params": [p for p in members if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        ]
    return kind([group for group in groups if group["params"]], lr=settings.lr, fused=True)
