"""The moving average of the weights is torch's."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossmodal.training.average import MovingAverage


def test_it_is_torchs_to_the_last_bit():
    """Buffers too, of which a batch norm's count is a whole number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    ours = MovingAverage(model, 0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        model(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
        for average in (ours, theirs):
            average.update_parameters(model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=0, rtol=0)
    assert not torch.equal(ours.module[0].weight, model[0].weight)
