"""Shared blocks against what their names promise."""

import torch

from crossmodal.models.blocks import SetDropout


def test_set_dropout_drops_the_same_features_of_all_members():
    torch.manual_seed(0)
    values = torch.rand(400, 5, 50) + 1
    dropout = SetDropout(0.3).train()
    found = dropout(values)
    kept = found != 0
    assert (kept == kept[:, :1]).all()
    assert (kept[0, 0] != kept[1, 0]).any()  # every set has a mask of its own
    torch.testing.assert_close(found[kept], (values / 0.7)[kept])
    assert abs(kept.float().mean().item() - 0.7) < 0.02
    assert torch.equal(dropout.eval()(values), values)
    assert torch.equal(SetDropout(0.0).train()(values), values)
