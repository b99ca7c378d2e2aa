"""``loss.candidates``: which pairs of a batch are scored, and trainings with some of them."""

import pytest
import torch
import torch.nn.functional as F
from assertions import raises_naming
from trainers import PARAMS, data_of, nothing, save_every_step, trainer_of, undisturbed_and_resumed

from crossmodal.settings.derived import loss_in_use
from crossmodal.training.candidates import choose_candidates, thin_gradient

SGR = {"module": "sgr", "sim_dim": 8, "name": "infonce", "neighbours": 2}


def chosen(count, *, images=40, each=1, neighbours=4, views=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image_index = torch.arange(images).repeat_interleave(each)
    vectors = [F.normalize(torch.randn(size, 8, generator=generator), dim=-1) for size in (images, images * each)]
    group = torch.arange(images) // neighbours
    return choose_candidates(*vectors, image_index, group, count, generator, views=views), vectors, image_index


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("count", [5, 8, 16])
def test_own_pair_group_and_nearest_are_certain_and_the_rest_is_drawn(count, each):
    candidates, (images, captions), image_index = chosen(count, each=each)
    group = torch.arange(40) // 4
    alike = group[:, None] == group[image_index]
    assert (candidates.certain & alike).sum() == alike.sum(), "siblings are hard negatives"
    assert not (candidates.certain & candidates.sampled).any()
    scored = candidates.scored.float()
    assert scored.sum(dim=0).mean() <= count + 1
    assert scored.sum(dim=0).mean() >= 0.8 * count
    if count == 16:
        nearest = (images @ captions.T).masked_fill(alike, -2).argmax(dim=0)
        assert candidates.certain[nearest, torch.arange(len(image_index))].all()
        assert (candidates.sampled.sum(dim=0) > 0).all()
        assert (candidates.sampled.sum(dim=1) > 0).all(), "of every image too"


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_weights_add_up_to_the_batch(count, each):
    """Of every caption and every image, also where the group has as many images as there are candidates."""
    for seed in range(20):
        candidates, *_ = chosen(count, each=each, seed=seed)
        torch.testing.assert_close(candidates.weights(0).sum(dim=0), torch.full((40 * each,), 40.0))
        torch.testing.assert_close(candidates.weights(1).sum(dim=1), torch.full((40,), 40.0 * each))
        assert candidates.scored.sum(dim=0).float().mean() <= count + 2


@pytest.mark.parametrize("count", [4, 5, 10])
def test_a_sample_is_even(count):
    """Every pair that is not certain is drawn as often as the others."""
    generator = torch.Generator().manual_seed(1)
    vectors = [F.normalize(torch.randn(20, 8, generator=generator), dim=-1) for _ in range(2)]
    pairs, group = torch.arange(20), torch.arange(20) // 4
    parts = [choose_candidates(*vectors, pairs, group, count, generator) for _ in range(2000)]
    drawn = torch.stack([part.sampled for part in parts]).float().mean(dim=0)[~parts[0].certain]
    assert drawn.std() < 0.02
    assert drawn.mean() > (0.1 if count == 10 else 0.05)


def test_all_or_no_views_of_a_pair():
    candidates, *_ = chosen(6, images=40, views=2, neighbours=4)
    blocks = candidates.scored.view(20, 2, 20, 2)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert blocks.diagonal(dim1=0, dim2=2).all()


def test_a_thinned_gradient_is_the_same_on_average():
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(30, 30, generator=generator) ** 5
    grad[:5] = 0
    parts = torch.stack([thin_gradient(grad, torch.arange(30), generator) for _ in range(4000)])
    level = grad.abs().sum() / grad.count_nonzero()
    torch.testing.assert_close(parts.mean(dim=0), grad, atol=0.05 * level.item(), rtol=0)
    assert (parts[:, grad.abs() >= level] == grad[grad.abs() >= level]).all(), "large values are kept as they are"
    assert parts.count_nonzero() < 0.4 * parts.numel()
    assert not thin_gradient(torch.zeros(3, 3), torch.arange(3), generator).any()


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"chunk": 3}, {"word_dropout": 0.3, "region_dropout": 0.3}])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(tiny_data, tmp_path, monkeypatch, changes):
    save_every_step(monkeypatch)
    data, settings = data_of(tiny_data), SGR | {"epochs": 2, "candidates": 4} | changes
    undisturbed_and_resumed(lambda name: trainer_of(data, tmp_path / name, "sgraf", **settings), killed_at=3)


@pytest.mark.parametrize(
    "settings", [SGR, SGR | {"name": "hinge", "negatives": "all"}, SGR | {"captions_per_image": 2}]
)
def test_as_many_candidates_as_pairs_give_the_loss_of_the_batch(tiny_data, tmp_path, settings):
    losses = []
    for count in (0, 8):
        trainer = trainer_of(data_of(tiny_data), tmp_path / f"{count}", "sgraf", candidates=count, **settings)
        trainer.model.train()
        losses.append(trainer._loss(trainer._epoch(0)[0], 0).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_views_and_hard_negatives(tiny_data, tmp_path):
    settings = SGR | {"name": "hinge", "views": 2, "region_dropout": 0.4, "word_dropout": 0.4, "epochs": 1}
    trainer = trainer_of(data_of(tiny_data), tmp_path, "sgraf", candidates=3, **settings)
    assert len(trainer.fit(nothing)) == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [("scan", "infonce"), ("tern", "hinge"), ("tern", "triplet")],
)
def test_where_they_cannot_be_had_a_line_says_so(tiny_data, tmp_path, model, name):
    with raises_naming("loss.candidates", "4"):
        trainer_of(data_of(tiny_data), tmp_path, model, name=name, candidates=4)


@pytest.mark.parametrize(
    ("model", "name", "given", "used"),
    [("sgraf", "infonce", "auto", 48), ("sgraf", "hinge", "auto", 48), ("sgraf", "crcl", "auto", 48),
     ("imram", "infonce", "auto", 48), ("tern", "infonce", "auto", 0), ("sgraf", "infonce", 0, 0),
     ("sgraf", "infonce", 7, 7)],
)  # fmt: skip
def test_what_auto_stands_for(model, name, given, used):
    loss = PARAMS.loss.model_copy(update={"name": name, "candidates": given})
    assert loss_in_use(PARAMS.model_copy(update={"model": model, "loss": loss})).candidates == used


def test_auto_needs_fewer_neighbours():
    for neighbours, batch_size in ((47, 64), (64, 48)):  # the second scores all pairs
        train = PARAMS.train.model_copy(update={"neighbours": neighbours, "batch_size": batch_size})
        assert loss_in_use(PARAMS.model_copy(update={"model": "sgraf", "train": train})).candidates == 48
    train = PARAMS.train.model_copy(update={"neighbours": 48, "batch_size": 64})
    with raises_naming("loss.candidates 48", "train.neighbours 48"):
        loss_in_use(PARAMS.model_copy(update={"model": "sgraf", "train": train}))
    assert loss_in_use(PARAMS.model_copy(update={"model": "tern", "train": train})).candidates == 0


def test_a_gradient_is_thinned_alike_in_any_order_of_the_captions():
    """Several processes have them in another order than one."""
    grad, captions, order = torch.randn(6, 9) ** 5, torch.arange(9) * 3, torch.randperm(9)
    one = thin_gradient(grad, captions, torch.Generator().manual_seed(4))
    other = thin_gradient(grad[:, order], captions[order], torch.Generator().manual_seed(4))
    torch.testing.assert_close(other, one[:, order])
