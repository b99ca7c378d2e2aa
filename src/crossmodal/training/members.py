"""Training of models that are not one trained matcher: several in turn, or one without parameters."""

from __future__ import annotations

from crossmodal.evaluation.metrics import flat
from crossmodal.models.base import Matcher
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import Report, Trainer
from crossmodal.training.validation import validate


def fit_in_turn(trainers: list[Trainer], report: Report) -> list[dict[str, float]]:
    """Train the members of a model one after the other; epochs and steps are counted on."""
    history: list[dict[str, float]] = []
    steps = 0
    for trainer in trainers:
        rows = trainer.fit(lambda metrics, step, before=steps: report(metrics, before + step))
        history += [{**row, "epoch": row["epoch"] + len(history)} for row in rows]
        steps += trainer.schedule.steps
    return history


def untrained_history(model: Matcher, data: TrainingData, batch_size: int, report: Report) -> list[dict[str, float]]:
    """The history of a model without parameters: its validation as epoch 0, with loss and learning rate 0."""
    metrics = flat(validate(model, data, batch_size))
    report({f"val/{name}": value for name, value in metrics.items()}, 0)
    return [{"epoch": 0, "loss": 0.0, "lr": 0.0, **metrics}]
