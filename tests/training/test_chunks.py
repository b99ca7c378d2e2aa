"""Gradient caching: a batch that is encoded in chunks has the gradients of the whole one."""

from functools import partial

import pytest
import torch
from assertions import raises_naming
from test_backbone_training import photographs, trained  # noqa: F401, a fixture
from test_device import data  # noqa: F401, a fixture
from trainers import data_of, save_every_step, text_encoders, trainer_of, undisturbed_and_resumed

from crossmodal import runtime
from crossmodal.batch import Encoding
from crossmodal.models.text import build_text
from crossmodal.training.chunks import join

WHOLE = {  # model, settings; batches of 9 captions
    "tern": ("tern", {"name": "infonce"}),
    "tern-hinge": ("tern", {"name": "hinge", "captions_per_image": 2}),
    "tern-crcl": ("tern", {"name": "crcl"}),
    "teran": ("teran", {"name": "infonce"}),  # its sets lose columns that no caption of a chunk has
    "vsepp-triplet": ("vsepp", {"name": "triplet", "miner": "batch_hard"}),
    "vse_infty": ("vse_infty", {"name": "hinge", "mlp_hidden": 0}),
    "vse_infty-mlp": ("vse_infty", {"name": "hinge", "mlp_hidden": 8, "norm_padding": True}),
    "scan": ("scan", {"name": "hinge"}),
    "sgr": ("sgraf", {"name": "hinge", "module": "sgr", "sim_dim": 8}),
    "saf": ("sgraf", {"name": "infonce", "module": "saf", "sim_dim": 8}),
    "vsrn": ("vsrn", {"name": "infonce", "layers": 2, "word_dim": 8}),
    "esa": ("esa", {"name": "infonce", "mlp_hidden": 8}),
    "xdim": ("xdim", {"name": "infonce", "mlp_hidden": 8}),
    "imram": ("imram", {"name": "infonce", "direction": "both", "steps": 2}),
}


def step_of(trainer, number=0, epoch=5):
    """Loss, gradients by name, and buffers after the backward pass of a batch."""
    trainer.model.train()
    loss = trainer._loss(trainer._epoch(0)[number], epoch)
    trainer._backward(loss)
    named = [*trainer.model.named_parameters(), *trainer.loss.named_parameters()]
    return loss.item(), {name: value.grad for name, value in named}, dict(trainer.model.named_buffers())


def assert_same(ours, theirs, tolerance=1e-6):
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    largest = max(grad.abs().max() for grad in theirs[1].values() if grad is not None)
    assert largest > 0.01
    for name, grad in theirs[1].items():
        assert (grad is None) == (ours[1][name] is None), name
        if grad is not None:
            torch.testing.assert_close(ours[1][name] / largest, grad / largest, atol=tolerance, rtol=0)
    torch.testing.assert_close(ours[2], theirs[2], atol=1e-6, rtol=0)  # running statistics


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_are_those_of_the_whole_batch(tiny_data, tmp_path, name):
    model, changes = WHOLE[name]
    changes = {"batch_size": 9, "label_epochs": 1, **changes}
    tiny = data_of(tiny_data)
    whole, chunked = (step_of(trainer_of(tiny, tmp_path / str(size), model, chunk=size, **changes)) for size in (0, 2))
    assert_same(chunked, whole)


@pytest.mark.parametrize("encoder", ["bert_finetune", "bigru"])
def test_text_encoders_that_are_trained(data, tmp_path, encoder):  # noqa: F811
    """VSE-infinity's images see the whole batch, for its batch norm; its captions come in chunks."""
    options = {"make_text": partial(build_text, encoder, text_encoders()[encoder]), "mlp_hidden": 8, "batch_size": 10}
    whole, chunked = (
        step_of(trainer_of(data[encoder], tmp_path / str(size), "vse_infty", chunk=size, **options)) for size in (0, 1)
    )
    assert any(name.startswith("text.") for name in whole[1])
    assert_same(chunked, whole)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("model", ["tern", "sgraf"])
def test_a_backbone_that_is_trained(photographs, tmp_path, model, frozen):  # noqa: F811
    """With SGRAF, whose attention over regions has batch norms, only the backbone comes in chunks."""
    steps = []
    for size in (0, 3):
        trainer = trained(photographs, tmp_path / str(size), model, chunk=size, batch_size=8)
        trainer.model.image.requires_grad_(not frozen)
        steps.append(step_of(trainer))
    assert (steps[0][1]["image.network.conv_head.weight"] is None) == frozen
    assert_same(steps[1], steps[0], tolerance=1e-5)


def test_batch_norms_of_the_backbone_are_refused(photographs, tmp_path):  # noqa: F811
    with raises_naming("train.chunk", "3", "grid_finetune.batch_norm") as error:
        trained(photographs, tmp_path, chunk=3, batch_norm="updated")
    assert "\n" not in str(error.value)


def test_dropout_draws_the_same_in_both_passes(tiny_data, tmp_path):
    """Against one graph over all chunks, seeded as they are."""
    trainer = trainer_of(data_of(tiny_data), tmp_path, "tern", chunk=2, dropout=0.3, name="infonce")
    _, ours, _ = step_of(trainer)
    trainer.model.zero_grad()
    chunks, model = trainer.chunks, trainer.model

    def one_graph(regions, words, seed):
        number = 0

        def side(encode, items):
            nonlocal number
            parts = []
            for start in range(0, len(items), 2):
                number += 1
                seed(number)
                parts.append(encode(items[start : start + 2]))
            return join(parts)

        return side(model.encode_regions, regions), [side(model.encode_text, part) for part in words]

    chunks.encode = one_graph
    trainer._loss(trainer._epoch(0)[0], 5).backward()
    largest = max(grad.abs().max() for grad in ours.values())
    for name, value in model.named_parameters():
        torch.testing.assert_close(ours[name] / largest, value.grad / largest, atol=1e-6, rtol=0)
    trainer.chunks = None
    trainer.model.zero_grad()
    _, others, _ = step_of(trainer)  # dropout there was
    assert max((ours[name] - grad).abs().max() for name, grad in others.items()) > 1e-3 * largest


def test_bf16(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: True)
    tiny = data_of(tiny_data)
    whole, chunked = (
        step_of(trainer_of(tiny, tmp_path / str(size), "sgraf", chunk=size, sim_dim=8, precision="bf16"))
        for size in (0, 3)
    )
    assert_same(chunked, whole, tolerance=0.02)


def test_a_killed_training_ends_with_the_same_weights(tiny_data, monkeypatch):
    save_every_step(monkeypatch)
    changes = {"chunk": 3, "accumulate": 2, "dropout": 0.2, "input_dropout": 0.2, "word_dropout": 0.2}
    changes |= {"epochs": 2, "ema": 0.5}
    tiny = data_of(tiny_data)
    undisturbed_and_resumed(lambda name: trainer_of(tiny, tiny_data / name, **changes), killed_at=5)


def test_join_pads_sets_to_the_longest():
    parts = [Encoding(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)), Encoding(torch.ones(1, 5, 4))]
    parts[1] = Encoding(parts[1].vectors, torch.ones(1, 5, dtype=torch.bool))
    joined = join(parts)
    assert joined.mask.sum(dim=1).tolist() == [3, 3, 5]
    assert joined.vectors.sum(dim=(1, 2)).tolist() == [12, 12, 20]
    assert join([Encoding(torch.ones(2, 4)), Encoding(torch.ones(1, 4))]).vectors.shape == (3, 4)
