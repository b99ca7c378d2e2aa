"""Learning-rate schedules against their formulas and torch's own."""

import math
from pathlib import Path

import pytest
import torch

from crossmodal.settings.params import load_params
from crossmodal.training.schedule import Schedule, _one_cycle

TRAIN = load_params(Path(__file__).resolve().parents[2] / "params.yaml").train


def rates(steps_per_epoch=10, rsums=(), **changes):
    settings = TRAIN.model_copy(update={"epochs": 4, "lr": 0.1, "warmup_steps": 0} | changes)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = Schedule(optimizer, settings, steps_per_epoch)
    seen = []
    for step in range(4 * steps_per_epoch):
        seen.append(schedule.lr)
        schedule.step()
        if (step + 1) % steps_per_epoch == 0 and rsums:
            schedule.end_epoch(rsums[step // steps_per_epoch])
    return seen


def test_constant_with_warmup():
    seen = rates(schedule="constant", warmup_steps=5)
    assert seen[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert set(seen[5:]) == {0.1}


def test_warmup_one_step_ahead():
    """(t + 2) / n at step t, as TERN's and TERAN's library has it."""
    assert rates(schedule="constant", warmup_steps=5, warmup_offset=1)[:5] == pytest.approx(
        [0.04, 0.06, 0.08, 0.1, 0.1]
    )


def test_step():
    seen = rates(schedule="step", step_epochs=2, gamma=0.1)
    assert seen[:20] == [0.1] * 20
    assert seen[20:] == pytest.approx([0.01] * 20)


def test_step_at_epochs_of_a_list():
    seen = rates(schedule="step", step_epochs=[1, 3], gamma=0.3)
    assert seen == pytest.approx([0.1] * 10 + [0.03] * 20 + [0.009] * 10)


def test_cosine():
    seen = rates(schedule="cosine")
    assert seen == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 40)) for step in range(40)])


def test_plateau():
    seen = rates(schedule="plateau", gamma=0.5, plateau_patience=0, rsums=(10, 9, 11, 11))
    assert seen[:20] == [0.1] * 20
    assert seen[20:] == pytest.approx([0.05] * 20)


def test_one_cycle_begins_peaks_and_ends_at_the_published_rates():
    assert [_one_cycle(share) for share in (0, 0.3, 1)] == pytest.approx([1 / 25, 1, 1 / 25e4])


def test_one_cycle_is_torchs():
    """But for where the steps lie: torch counts one fewer on the way up and on the way down."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=41)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert rates(schedule="onecycle") == pytest.approx(expected, rel=0.1, abs=3e-3)
