"""``loss.kwargs`` are tried when the loss is built, not in the first batch of a training."""

import pytest
import torch
from assertions import assert_names
from metric_pairs import settings_of

from crossmodal.errors import UserError
from crossmodal.losses.metric import MINERS, TRIPLETS, MetricLoss


@pytest.mark.parametrize(
    ("name", "part", "chosen", "kwargs"),
    [
        ("triplet", "miner", "triplet_margin", {"margin": "abc"}),
        ("triplet", "miner", "triplet_margin", {"distance": "cosine"}),
        ("triplet", "miner", "triplet_margin", {"no_such": 1}),
        ("triplet", "miner", "batch_easy_hard", {"pos_strategy": "hardish"}),
        ("triplet", "miner", "hdc", {"filter_percentage": 2.0}),
        ("triplet", "miner", "distance_weighted", {"cutoff": "x"}),
        ("contrastive", "miner", "uniform_histogram", {"num_bins": 0}),
        ("triplet", "distance", "euclidean", {"p": "x"}),
        ("contrastive", "reducer", "threshold", {"low": "a"}),
        ("contrastive", "regularizer", "l1", {"p": "x"}),
    ],
)
def test_what_the_library_does_not_take_is_named(name, part, chosen, kwargs):
    with pytest.raises(UserError) as error:
        MetricLoss(settings_of(name, **{part: chosen, "kwargs": {part: kwargs}}))
    assert_names(error, "params.yaml", f"loss.kwargs.{part}")


def test_a_misspelt_kind_of_triplets_is_named():
    """The library takes any other word for all."""
    for kind in TRIPLETS:
        MetricLoss(settings_of("triplet", miner="triplet_margin", kwargs={"miner": {"type_of_triplets": kind}}))
    with pytest.raises(UserError) as error:
        MetricLoss(settings_of("triplet", miner="triplet_margin", kwargs={"miner": {"type_of_triplets": "semi-hard"}}))
    assert_names(error, "loss.kwargs.miner.type_of_triplets 'semi-hard'", *map(repr, TRIPLETS))


@pytest.mark.parametrize("miner", [None, *sorted(MINERS)])
def test_the_trial_leaves_random_numbers_and_gradients_as_they_were(miner):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with torch.no_grad():
        loss = MetricLoss(settings_of("triplet", miner=miner))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not list(loss.parameters())
