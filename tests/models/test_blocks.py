"""Shared blocks against what their names promise."""

import pytest
import torch

from crossmodal.models.blocks import SetDropout, TransformerEncoder, put_items, take_items


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


@pytest.mark.parametrize("start", ["drawn", "copies"])
def test_layers_start_as_copies_of_one_as_torchs_do(start):
    """The same numbers of the same distribution in every layer, or numbers of its own; never the same tensor."""
    torch.manual_seed(0)
    encoder = TransformerEncoder(8, layers=3, heads=2, feed_forward=12, dropout=0.0, start=start)
    first, *others = (layer.state_dict() for layer in encoder.layers)
    for other in others:
        matrices = [name for name, value in first.items() if value.ndim > 1]
        assert all(torch.equal(other[name], first[name]) == (start == "copies") for name in matrices)
        assert all(other[name].data_ptr() != value.data_ptr() for name, value in first.items())
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).state_dict()
    same = all(torch.equal(value, theirs[name]) for name, value in encoder.state_dict().items())
    assert same == (start == "copies")


@pytest.mark.parametrize("lengths", [[5, 2, 1, 4], [3, 3]])
def test_transformer_encoder_gives_what_torchs_does_for_real_items(lengths):
    """Outputs and gradients of torch.nn.TransformerEncoder; whatever stands at padding changes nothing."""
    torch.manual_seed(0)
    encoder = TransformerEncoder(8, layers=2, heads=2, feed_forward=12, dropout=0.0).double()
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True).double()
    theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    theirs.load_state_dict(encoder.state_dict())
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = torch.randn(*mask.shape, 8, dtype=torch.float64)
    items = None if mask.all() else mask.flatten().nonzero().squeeze(1)
    weights = torch.randn(int(mask.sum()), 8, dtype=torch.float64)

    expected = theirs(values, src_key_padding_mask=~mask)[mask]
    spoiled = values.masked_fill(~mask[..., None], 1e6).requires_grad_()
    found = encoder(take_items(spoiled, items), items, mask)
    torch.testing.assert_close(found, expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for ours, published in zip(encoder.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, published.grad)
    assert not spoiled.grad[~mask].any()
    assert not put_items(found, items, *mask.shape)[~mask].any()
