"""The training loop learns, resumes to the same weights, and follows its settings."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from assertions import raises_naming
from sklearn.metrics import ndcg_score
from trainers import PARAMS, data_of, nothing, save_every_step, trainer_of, undisturbed_and_resumed

from crossmodal import runtime
from crossmodal.features.batches import read_regions, read_words
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.vsrn import VsrnMatcher
from crossmodal.reports.curves import best_epoch
from crossmodal.training import loop
from crossmodal.training.batches import EpochBatches


@pytest.mark.parametrize(("model", "loss"), [("tern", "infonce"), ("tern", "triplet"), ("vsepp", "infonce")])
def test_learns(tiny_data, model, loss):
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", model, epochs=15, name=loss)
    history = trainer.fit(nothing)
    assert history[-1]["loss"] < (0.6 if loss == "infonce" else 0.95) * history[1]["loss"]
    assert max(row["rsum"] for row in history) > 400  # 8 validation images: chance is about 390 by R@10 alone


def test_best_epoch_is_kept(tiny_data):
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", epochs=6)
    history = trainer.fit(nothing)
    metrics = loop.validate(trainer.model, trainer.data, 8)
    assert metrics["rsum"] == pytest.approx(max(row["rsum"] for row in history))


@pytest.mark.parametrize(
    ("killed_at", "model", "loss"),
    [
        (2, "tern", {}),
        (7, "tern", {"dropout": 0.2}),
        (13, "tern", {"name": "hinge"}),
        (10, "vsepp", {"name": "hinge", "views": 2}),
        (9, "tern", {"ema": 0.8}),
        (8, "vsepp", {"input_dropout": 0.2, "name": "triplet", "miner": "distance_weighted"}),
    ],
)
def test_killed_run_ends_with_the_same_weights(tiny_data, monkeypatch, killed_at, model, loss):
    save_every_step(monkeypatch)
    changes = {"region_dropout": 0.2, "word_dropout": 0.2, "schedule": "plateau", "plateau_patience": 0}
    changes |= {"model": model, **loss}
    data = data_of(tiny_data)
    undisturbed_and_resumed(lambda name: trainer_of(data, tiny_data / name, **changes), killed_at)


def test_ema_is_the_moving_average_of_the_weights(tiny_data):
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", epochs=1, ema=0.7)
    update, average = trainer.average.update_parameters, {}

    def also_by_hand(model):
        update(model)
        for name, value in model.state_dict().items():
            average[name] = 0.7 * average[name] + 0.3 * value if name in average else value.clone()

    trainer.average.update_parameters = also_by_hand
    trainer.fit(nothing)
    for name, value in trainer.model.state_dict().items():  # after fit: the best epoch's, of the average
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=0)


def test_accumulation_halves_the_steps(tiny_data):
    data = data_of(tiny_data)
    steps = []
    for number, accumulate in enumerate((1, 2)):
        trainer = trainer_of(data, tiny_data / str(number), epochs=1, accumulate=accumulate)
        trainer.fit(nothing)
        steps.append(trainer.schedule.steps)
    assert steps == [6, 3]


def test_patience_stops_early(tiny_data):
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", epochs=50, patience=2, lr=1e-12, warmup_steps=0)
    assert len(trainer.fit(nothing)) == 3  # the first epoch is the best, two more do not better it


def test_bf16_falls_back_where_the_processor_is_slow_in_it(tiny_data, monkeypatch):
    def history(precision):
        return trainer_of(data_of(tiny_data), tiny_data / precision, precision=precision, epochs=1).fit(nothing)

    monkeypatch.setattr(runtime, "computes_fast", lambda *_: True)
    assert history("bf16") != history("fp32")
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: False)
    shutil.rmtree(tiny_data / "bf16")
    assert history("bf16") == history("fp32")


def test_infinite_loss_is_a_clear_error(tiny_data):
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state")
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with raises_naming("train.lr"):
        trainer.fit(nothing)


def test_weights_that_come_apart_in_the_last_step_are_a_clear_error(tiny_data):
    """No loss follows that would tell, and NaN, which is not below anything, would rank first."""
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", epochs=1)
    step = trainer._step

    def come_apart():
        step()
        if trainer.schedule.steps == trainer.batches_per_epoch:
            for parameter in trainer.model.parameters():
                parameter.data.fill_(float("nan"))

    trainer._step = come_apart
    with raises_naming("NaN", "train.lr"):
        trainer.fit(nothing)


def test_a_loss_of_vectors_is_refused_for_sets(tiny_data):
    with raises_naming("loss.name", "ntxent") as error:
        trainer_of(data_of(tiny_data), tiny_data / "state", "scan", name="ntxent")
    assert "\n" not in str(error.value)


def epoch_of(data, *, seed=0, epoch=0, share=(0, 1), **changes):
    plain = {"batch_size": 8, "captions_per_image": 1, "neighbours": 1, "region_dropout": 0.0, "word_dropout": 0.0}
    settings = PARAMS.train.model_copy(update=plain | changes)
    return EpochBatches(data, settings, seed=seed, epoch=epoch, share=share)


def test_an_epoch_has_every_caption_once_with_its_image(tiny_data):
    data = data_of(tiny_data)
    epoch = epoch_of(data)
    rows = np.concatenate(epoch.batches)
    assert sorted(rows) == sorted(data.train.captions)
    batch = epoch[1]
    captions = epoch.batches[1][np.argsort(data.words.lengths[epoch.batches[1]], kind="stable")]
    images, image_index = np.unique(captions // 2, return_inverse=True)
    assert batch.image_index.tolist() == image_index.tolist()
    np.testing.assert_array_equal(batch.regions.features, data.regions.padded(images, "features"))
    for words, part in zip(batch.words, np.array_split(captions, 4), strict=True):
        np.testing.assert_array_equal(words.features, data.words.padded(part, "features"))
    other = epoch_of(data, epoch=1)
    assert [list(b) for b in other.batches] != [list(b) for b in epoch.batches]


def test_shares_make_up_the_batch(tiny_data):
    """Captions, images and who belongs to whom, put together from three processes' shares."""
    data = data_of(tiny_data)
    whole = epoch_of(data, batch_size=10)[1]
    shares = [epoch_of(data, batch_size=10, share=(rank, 3))[1] for rank in range(3)]
    images = [image for share in shares for image in share.regions.features]
    captions = [caption for share in shares for words in share.words for caption in words.features]
    assert len(images) == len(whole.regions.features)
    assert [len(share.regions.features) for share in shares] == [len(p) for p in np.array_split(images, 3)]
    assert [sum(len(words.mask) for words in share.words) for share in shares] == [4, 3, 3]

    def pairs(images, captions, image_index):
        return sorted(
            (float(images[i].sum()), float(caption.sum())) for caption, i in zip(captions, image_index, strict=True)
        )

    expected = pairs(whole.regions.features, [c for words in whole.words for c in words.features], whole.image_index)
    for share in shares:
        np.testing.assert_allclose(pairs(images, captions, share.image_index), expected, rtol=1e-5)


def test_shares_draw_dropout_of_their_own(tiny_data):
    data = data_of(tiny_data)
    shares = [epoch_of(data, batch_size=24, word_dropout=0.5, share=(rank, 2)) for rank in (0, 1, 0)]
    first, second, again = (torch.cat([words.mask.sum(1) for words in share[0].words]) for share in shares)
    assert first.tolist() == again.tolist() != second.tolist()


def test_captions_of_an_image_stay_together(tiny_data):
    data = data_of(tiny_data)
    epoch = epoch_of(data, captions_per_image=2)
    assert sorted(np.concatenate(epoch.batches)) == sorted(data.train.captions)
    for number, captions in enumerate(epoch.batches):
        assert (captions[::2] // 2 == captions[1::2] // 2).all()
        assert len(epoch[number].regions.features) == 4


def test_neighbours_share_a_batch(tiny_data):
    data = data_of(tiny_data)
    epoch = epoch_of(data, neighbours=4, batch_size=4)
    assert sorted(np.concatenate(epoch.batches)) == sorted(data.train.captions)
    for captions in epoch.batches:
        images = sorted(captions // 2)
        assert images == list(range(images[0], images[0] + 4))


def test_size_augmentation_drops_the_share_and_never_everything(tiny_data):
    data = data_of(tiny_data)
    rows = np.arange(24)
    kept = [read_regions(data.regions, rows, np.random.default_rng(seed), 0.4).mask.sum(1) for seed in range(200)]
    lengths = torch.from_numpy(data.regions.lengths[rows])
    assert torch.stack(kept).min() >= 1
    share = torch.stack(kept).float().mean(0) / lengths
    long = lengths >= 4
    assert 0.5 < share[long].mean() < 0.72
    words = read_words(data.words, rows, np.random.default_rng(0), 0.9)
    assert words.mask[:, 0].all()


def test_weight_decay_is_of_matrices_alone_or_of_everything(tiny_data):
    """A step without a gradient multiplies by 1 - lr x decay what AdamW decays; the learned temperature never."""
    data = data_of(tiny_data)
    for everything in (False, True):
        changes = {
            "weight_decay": 0.1,
            "lr": 0.5,
            "warmup_steps": 0,
            "schedule": "constant",
            "decay_biases": everything,
        }
        trainer = trainer_of(data, tiny_data / str(everything), **changes)
        parameters = {**dict(trainer.model.named_parameters()), "loss": trainer.loss.log_scale}
        before = {name: value.detach().clone() for name, value in parameters.items()}
        for value in parameters.values():
            value.grad = torch.zeros_like(value)
        trainer.optimizer.step()
        for name, value in parameters.items():
            decayed = name != "loss" and (everything or value.ndim > 1)
            torch.testing.assert_close(value.detach(), before[name] * (0.95 if decayed else 1.0))
    assert {value.ndim for value in parameters.values()} == {0, 1, 2}


def test_a_learned_temperature_comes_back_from_its_bound(tiny_data):
    trainer = trainer_of(
        data_of(tiny_data), tiny_data / "state", name="infonce", temperature=0.011, lr=0.5, warmup_steps=0
    )
    scales = []
    for slope in (-1.0, 1.0, 1.0, 1.0):
        trainer.loss.log_scale.grad = torch.tensor(slope)
        trainer._step()
        scales.append(trainer.loss.log_scale.exp().item())
    assert scales[0] == pytest.approx(100)
    assert scales[-1] < 99


@pytest.mark.parametrize(("best", "epoch"), [("rsum", 3), ("t2i", 2), ("ndcg", 1)])
def test_the_epoch_is_kept_by_the_figure_that_is_asked_for(tiny_data, monkeypatch, best, epoch):
    """Figures of three epochs of which each has another as its best, and the plateau schedule goes by the same."""
    figures = [
        {"i2t": {"r1": 10.0, "r5": 20.0, "r10": 30.0}, "t2i": {"r1": 1.0, "r5": 2.0, "r10": 3.0, "ndcg25": 0.7}},
        {"i2t": {"r1": 0.0, "r5": 0.0, "r10": 0.0}, "t2i": {"r1": 9.0, "r5": 9.0, "r10": 9.0, "ndcg25": 0.6}},
        {"i2t": {"r1": 90.0, "r5": 90.0, "r10": 90.0}, "t2i": {"r1": 3.0, "r5": 3.0, "r10": 3.0, "ndcg25": 0.5}},
    ]
    rows = iter({**row, "rsum": sum(row[way][f"r{k}"] for way in row for k in (1, 5, 10))} for row in figures)
    monkeypatch.setattr(loop, "validate", lambda *_: next(rows))
    changes = {"epochs": 3, "best": best, "schedule": "plateau", "plateau_patience": 0, "gamma": 0.5}
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", **changes)
    history = trainer.fit(nothing)
    assert trainer.state.best_epoch == epoch - 1
    assert best_epoch(history)["epoch"] == epoch
    assert trainer.schedule.plateau_decays == {"rsum": 1, "t2i": 1, "ndcg": 2}[best]
    expected = {"rsum": [], "t2i": [6.0, 27.0, 9.0], "ndcg": [0.7, 0.6, 0.5]}[best]
    assert [row["kept_by"] for row in history if "kept_by" in row] == expected


def test_ndcg_of_the_validation_captions(tiny_data):
    """Against scikit-learn's, with the gain that TERN has."""
    data = data_of(tiny_data)
    relevance = np.random.default_rng(0).random((16, 8)).astype(np.float32)
    trainer = trainer_of(replace(data, relevance=relevance), tiny_data / "state")
    metrics = loop.validate(trainer.model, trainer.data, 8)
    scores = similarity_matrix(SearchInputs(trainer.model, data.regions, data.words, data.val, 8))
    assert metrics["t2i"]["ndcg25"] == pytest.approx(ndcg_score(2**relevance - 1, scores.T, k=25), abs=1e-6)


def test_bf16(tiny_data, monkeypatch):
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: True)
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", precision="bf16", epochs=8)
    history = trainer.fit(nothing)
    assert history[-1]["loss"] < history[1]["loss"]
    assert all(value.dtype == torch.float32 for value in trainer.model.state_dict().values())


def test_compiled_encoders_train_the_same(tiny_data, monkeypatch):
    """Traced by torch.compile, but run by its plain backend: the others need a C++ compiler and minutes."""
    data, compiled = data_of(tiny_data), []

    def compile_plainly(function, **options):
        compiled.append((function.__name__, options))
        return torch._dynamo.optimize("eager", **options)(function)

    monkeypatch.setattr(torch, "compile", compile_plainly)
    expected, found = (trainer_of(data, tiny_data / str(on), epochs=1, compile=on).fit(nothing) for on in (False, True))
    assert [name for name, _ in compiled] == ["encode_regions", "encode_text"]
    assert found[0] == pytest.approx(expected[0], rel=1e-5)


def test_input_dropout_is_of_what_the_encoders_take(tiny_data, monkeypatch):
    """One mask for all regions of an image and for all tokens of a caption; none in validation."""
    given = {"encode_images": [], "encode_captions": []}
    for name, kept in given.items():
        whole = getattr(VsrnMatcher, name)

        def noted(model, items, whole=whole, kept=kept):
            kept.append((model.training, items.features, items.mask))
            return whole(model, items)

        monkeypatch.setattr(VsrnMatcher, name, noted)
    trainer = trainer_of(data_of(tiny_data), tiny_data / "state", "vsrn", epochs=1, input_dropout=0.5)
    trainer.fit(nothing)
    for calls in given.values():
        shares = {True: [], False: []}
        for training, features, mask in calls:
            zero = (features == 0) | ~mask.unsqueeze(2)
            dropped = zero.all(dim=1)  # (B, D)
            assert torch.equal(zero & mask.unsqueeze(2), dropped.unsqueeze(1) & mask.unsqueeze(2))
            shares[training].append(dropped.float().mean().item())
        assert 0.4 < np.mean(shares[True]) < 0.6
        assert max(shares[False]) == 0
