"""The pretended device refuses what a GPU refuses, and counts what it is asked for."""

import pytest
import torch
from pretended_device import pretended
from torch import nn

from crossmodal.runtime import random_state, restore_random_state, seed_everything

NAME = "pretended"


def test_it_does_not_mix_with_the_cpu():
    ours, theirs = torch.ones(3).to(NAME), torch.ones(3)
    for mix in (lambda: ours + theirs, lambda: torch.cat([ours, theirs]), lambda: ours.add_(theirs)):
        with pytest.raises(RuntimeError, match="at least two devices"):
            mix()
    with pytest.raises(RuntimeError, match="two devices"):
        nn.Linear(3, 2)(ours)
    assert (ours + torch.tensor(1.0)).tolist() == [2, 2, 2]  # numbers are taken along, as on a GPU


def test_its_random_numbers_are_its_own():
    seed_everything(3)
    state = random_state(torch.device(NAME))
    ours, theirs = torch.rand(4, device=NAME).cpu(), torch.rand(4)
    assert not torch.equal(ours, theirs)
    restore_random_state(state, torch.device(NAME))
    assert torch.equal(torch.rand(4), theirs)
    assert torch.equal(torch.rand(4, device=NAME).cpu(), ours)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(4, device=NAME, generator=torch.Generator())


def test_autocast_casts_as_on_cuda():
    values = torch.rand(2, 3, 4).to(NAME)
    linear, gru = nn.Linear(4, 2).to(NAME), nn.GRU(4, 2, batch_first=True).to(NAME)
    with torch.autocast(NAME, dtype=torch.bfloat16):
        assert linear(values).dtype == torch.bfloat16
        assert linear(values).softmax(-1).dtype == torch.float32
        assert gru(values)[0].dtype == torch.float16


def test_what_has_no_fixed_order_is_refused_where_order_is_asked_for():
    values = torch.rand(4).to(NAME)
    seed_everything(0)
    with pytest.raises(RuntimeError, match="deterministic"):
        values.cumsum(0)
    try:
        torch.use_deterministic_algorithms(False)
        with pretended() as counts:
            values.cumsum(0)
    finally:
        seed_everything(0)
    assert counts.unordered == {"cumsum": 1}
