"""The training loop: a loss on the similarity matrix, best epoch by validation, resumable.

State goes to disk after every epoch and every few minutes within one: a killed run ends with the weights of an
undisturbed one. Several processes (processes.py) all run this loop, each on its share of every batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from crossmodal.batch import Encoding
from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import flat
from crossmodal.losses.registry import build_loss
from crossmodal.models.base import Matcher
from crossmodal.runtime import float32_products, progress, usable_precision
from crossmodal.settings.training import Loss, Train
from crossmodal.training.average import MovingAverage
from crossmodal.training.batches import EpochBatches, PairBatch, TrainingData, batch_norms_explained, load_batches
from crossmodal.training.candidates import CandidateScorer
from crossmodal.training.chunks import ChunkedEncoder
from crossmodal.training.collapse import CollapseWatch
from crossmodal.training.feed import loader_workers
from crossmodal.training.optimizer import build_optimizer
from crossmodal.training.processes import ALONE, Processes
from crossmodal.training.randomness import BatchRandomness
from crossmodal.training.running_loss import RunningLoss
from crossmodal.training.schedule import Schedule
from crossmodal.training.validation import best_metric, validate
from crossmodal.workspace import load_state, save_state

SAVE_SECONDS = 300
LOG_EVERY = 10  # optimiser steps
KEPT_BY = "kept_by"  # column of the history


@dataclass
class TrainingState:
    """Progress of a run: all that a resumed run needs but model, optimiser and schedule."""

    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best_metric: float = -math.inf
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    run_id: str | None = None


Report = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class TrainerSettings:
    """How a matcher is trained.

    text_lr, image_lr: factors of the learning rates of ``model.text`` and ``model.image``. frozen_epochs: first epochs
    in which ``model.image`` is not trained.
    """

    train: Train
    loss: Loss
    seed: int
    text_lr: float = 1.0
    image_lr: float = 1.0
    frozen_epochs: int = 0


class Trainer:
    """Trains one matcher.

    Args:
        model: on its device; trained in place, holds the best epoch's weights after ``fit``.
        resume: folder of the state, from which training resumes; needed by the first process alone.
        processes: the distributed group.

    Raises:
        UserError: the loss needs one vector an item and the model gives sets; or a batch is too small to share.
    """

    def __init__(
        self,
        model: Matcher,
        data: TrainingData,
        how: TrainerSettings,
        *,
        resume: Path | None,
        processes: Processes = ALONE,
    ) -> None:
        settings, loss = how.train, how.loss
        self.model, self.data, self.settings, self.seed = model, data, settings, how.seed
        self.device = next(model.parameters()).device
        self.processes, self.frozen_epochs = processes, how.frozen_epochs
        self.workers = loader_workers(settings.workers, data, self.device, processes.on_this_machine)
        self.precision = usable_precision(settings.precision, self.device.type, "train.precision")
        self.loss, self.views = build_loss(loss, len(data.caption_image)).to(self.device), loss.views
        self.collapse = CollapseWatch(self.loss)
        if self.loss.takes_vectors and not model.pooled:
            raise UserError(
                f"params.yaml: loss.name {loss.name}: needs one vector an item, and this model has a set; "
                "hinge, infonce and crcl go with every model"
            )
        model.input_dropout.p = settings.input_dropout
        self.candidates = CandidateScorer.of(loss, self.loss, model, processes)
        self.processes.prepare(model)
        self.chunks = ChunkedEncoder(model, settings.chunk, self._autocast) if settings.chunk else None
        self.average = MovingAverage(model, settings.ema) if settings.ema else None
        self.state = TrainingState()
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.optimizer = build_optimizer(model, self.loss, settings, text_lr=how.text_lr, image_lr=how.image_lr)
        self.batches_per_epoch = len(self._epoch(0))
        self.schedule = Schedule(self.optimizer, settings, math.ceil(self.batches_per_epoch / settings.accumulate))
        if resume:
            resume.mkdir(exist_ok=True)
        self._state_path = resume and resume / "state.pt"
        self._stateful = ["model", "loss", "optimizer", "schedule"] + ["average"] * bool(settings.ema)
        self._saved_at = time.monotonic()
        self._load()
        if settings.compile:  # lengths vary from batch to batch: dynamic, or it compiles again for each
            for encode in ("encode_regions", "encode_text"):
                setattr(model, encode, torch.compile(getattr(model, encode), dynamic=True))

    def fit(self, report: Report) -> list[dict[str, float]]:
        """Train to the last epoch, or until ``patience`` runs out; a UserError when the loss is no longer finite.

        Args:
            report: called with metrics and the optimiser step they belong to.

        Returns:
            One row per epoch: epoch (from 1), loss per pair, lr, the validation metrics, and where it is not rsum the
            metric by which the best epoch is kept.
        """
        while self.state.epoch < self.settings.epochs and not self._out_of_patience():
            with float32_products(self.precision, self.device.type):
                loss = self._train_epoch(self.state.epoch, report)
            candidate = self.average.module if self.average else self.model
            metrics = validate(candidate, self.data, self.settings.batch_size, self.processes)
            metric = best_metric(metrics, self.settings.best)
            self.schedule.end_epoch(metric)
            if metric > self.state.best_metric:
                self.state.best_metric, self.state.best_epoch = metric, self.state.epoch
                self.best_weights = {k: v.detach().clone() for k, v in candidate.state_dict().items()}
            row = {"epoch": self.state.epoch + 1, "loss": loss, "lr": self.schedule.lr, **flat(metrics)}
            if self.settings.best != "rsum":
                row[KEPT_BY] = metric
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
        loader = load_batches(batches, first=state.batch, workers=self.workers, pinned=self.device.type != "cpu")
        size = len(batches.batches[0])
        pairs = size * self.views
        samples = {"initial": state.batch * size, "total": len(batches) * size, "unit": "sample", "unit_scale": True}
        bar = progress(desc=f"epoch {epoch + 1}/{settings.epochs}", **samples)
        self.model.train()
        self.model.image.requires_grad_(epoch >= self.frozen_epochs)
        started, seen = time.monotonic(), 0
        losses = RunningLoss(state.loss_sum, self.device)
        often = self.device.type == "cpu" or self.loss.waits  # a wait lets a GPU run dry
        for batch in loader:
            batch = batch.to(self.device, self.data.on_device)
            with batch_norms_explained(batch):
                loss = self._loss(batch, epoch)
            self._backward(loss)
            losses.add(loss, pairs)
            if often:
                self._read(losses, epoch)
            if self.schedule.steps >= settings.warmup_steps and self.processes.first:
                self.collapse.look(losses.last, state.batch, batch.image_index, epoch, batch.captions)
            state.batch += 1
            seen += size
            if state.batch % settings.accumulate == 0 or state.batch == len(batches):
                self._step()
                if self.schedule.steps % LOG_EVERY == 0:
                    value = self._read(losses, epoch)
                    bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                    figures = {"loss": value, "lr": self.schedule.lr}
                    figures["samples_per_second"] = seen / (time.monotonic() - started)
                    report({f"train/{name}": figure for name, figure in figures.items()}, self.schedule.steps)
                if time.monotonic() - self._saved_at > SAVE_SECONDS and state.batch < len(batches):
                    self._read(losses, epoch)
                    self._save()
            bar.update(size)
        bar.close()
        self._read(losses, epoch)
        self.collapse.end_epoch(epoch)
        if self.processes.first:
            self.loss.end_epoch(epoch)
        return state.loss_sum / len(batches)

    def _loss(self, batch: PairBatch, epoch: int) -> torch.Tensor:
        """Loss of the whole batch, of which ``batch`` is this process's share: images N, captions B in all."""
        processes, image_index = self.processes, batch.image_index
        images, captions = self._encode(batch, epoch)
        images = processes.gather_encoding(images)
        if self.loss.takes_vectors:
            vectors = processes.gather(torch.cat([part.vectors for part in captions]))
            self._randomness(epoch).seed_torch(0)  # miners that draw pairs draw the same everywhere
            return self.loss(images.vectors[image_index], vectors, batch.index_on_host())
        options = {"captions": batch.captions} if self.loss.takes_captions else {}
        if self.candidates:
            similarity, chosen = self.candidates.score(self.model, images, captions, batch, self._randomness(epoch))
            options["candidates"] = chosen[image_index]
        else:
            scores = self.model.batch_similarity(images, captions, sparse=self.loss.sparse(epoch, len(image_index)))
            similarity = processes.gather(scores.T).T  # (N, own captions) of all processes: (N, B)
        return self.loss(similarity[image_index], image_index, epoch, **options)  # (B, B), the pairs on the diagonal

    def _encode(self, batch: PairBatch, epoch: int) -> tuple[Encoding, list[Encoding]]:
        """This process's images and captions, in float32."""
        seed = partial(self._randomness(epoch).seed_torch, 1 + self.processes.rank)  # processes differ in their dropout
        if self.chunks:
            return self.chunks.encode(batch.regions, batch.words, seed)
        seed()
        with self._autocast():
            images, captions = self.model(batch.regions, batch.words)
        return images.float(), [part.float() for part in captions]

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()
        if self.chunks:
            self.chunks.backward()

    def _step(self) -> None:
        self.processes.average_gradients((*self.model.parameters(), *self.loss.parameters()))
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.loss.end_step()
        if self.average:
            self.average.update_parameters(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()

    def _read(self, losses: RunningLoss, epoch: int) -> float:
        """The last loss per pair; the sum goes to the state. Waits for the device.

        Raises:
            UserError: a loss since the epoch began was not finite.
        """
        value, total = losses.read()
        if not math.isfinite(total):
            raise UserError(
                f"train.lr {self.settings.lr}: the loss is no longer finite in epoch {epoch + 1}; "
                "a lower train.lr, train.clip or precision fp32 may help"
            )
        self.state.loss_sum = total
        return value

    def _epoch(self, epoch: int) -> EpochBatches:
        settings = self.settings
        if self.model.image.boxes is not None:  # a trained backbone drops cells of its own output
            settings = settings.model_copy(update={"region_dropout": 0.0})
        share = (self.processes.rank, self.processes.count)
        stored = self.device.type != "cpu"
        return EpochBatches(
            self.data, settings, seed=self.seed, epoch=epoch, views=self.views, share=share, stored=stored
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _randomness(self, epoch: int) -> BatchRandomness:
        return BatchRandomness(self.seed, epoch, self.state.batch)

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and self.state.epoch - 1 - self.state.best_epoch >= patience

    def _save(self) -> None:
        """Gradients are not kept: saved between steps."""
        if not self.processes.first:
            return
        parts = {name: getattr(self, name).state_dict() for name in self._stateful}
        save_state(self._state_path, parts | {"best": self.best_weights, "progress": vars(self.state)})
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        state = self.processes.from_first(load_state(self._state_path) if self.processes.first else None)
        if state is None:
            return
        for name in self._stateful:
            getattr(self, name).load_state_dict(state[name])
        self.best_weights = state["best"]
        self.state = TrainingState(**state["progress"])
