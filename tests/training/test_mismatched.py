"""Training under wrong pairs: the stored permutation, published index files, and a loss that remembers every pair."""

import numpy as np
import pytest
import torch
from assertions import raises_naming
from test_train_stage import write_params
from trainers import PARAMS, data_of, nothing, save_every_step, trainer_of, undisturbed_and_resumed

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.training import loop
from crossmodal.training.mismatched import FILE, training_images, with_wrong_pairs
from stages import train

TRAIN = Split(np.arange(100, 140), np.arange(500, 700), np.repeat(np.arange(40), 5))  # 40 images, 5 captions each


def settings(mismatched, seed=0):
    return PARAMS.train.model_copy(update={"mismatched": mismatched, "mismatched_seed": seed})


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_the_share_is_shuffled_and_every_image_keeps_its_number_of_captions(share):
    wrong = training_images(TRAIN, settings(share))
    assert np.bincount(wrong, minlength=40).tolist() == [5] * 40
    moved = np.count_nonzero(wrong != TRAIN.caption_image) / 200
    assert share * 0.9 <= moved <= share  # of k captions drawn, about k / 40 keep their image by chance
    np.testing.assert_array_equal(wrong, training_images(TRAIN, settings(share)))
    assert (wrong != training_images(TRAIN, settings(share, seed=1))).any()


def test_the_draw_is_not_of_the_training_seed(tiny_data):
    """Two seeds of training see the same wrong pairs."""
    wrong = training_images(TRAIN, settings(0.5, seed=3))
    np.random.seed(7)
    torch.manual_seed(7)
    np.testing.assert_array_equal(wrong, training_images(TRAIN, settings(0.5, seed=3)))


def published(folder, index):
    path = folder / "f30k_precomp_0.2.npy"
    np.save(path, index)
    return str(path)


def test_an_index_of_captions_as_ncr_publishes_it(tmp_path):
    index = TRAIN.caption_image.copy()
    index[[0, 7, 199]] = [39, 0, 1]
    np.testing.assert_array_equal(training_images(TRAIN, settings(published(tmp_path, index))), index)


def test_an_index_of_images_as_decl_publishes_it(tmp_path):
    """All captions of an image are given the same other one: data.py's noisy_inx[int(index / im_div)]."""
    index = np.arange(40)
    index[[3, 8, 20]] = [8, 20, 3]
    expected = [index[caption // 5] for caption in range(200)]
    assert training_images(TRAIN, settings(published(tmp_path, index))).tolist() == expected


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (np.arange(199) // 5, ["int64 (199,)", "200", "40"]),
        (np.arange(200.0) // 5, ["float64 (200,)", "200"]),
        (np.zeros((200, 1), dtype=int), ["(200, 1)"]),
        (np.arange(200) // 4, ["index 40 at 160", "0 to 39"]),
        (-np.arange(40), ["index -1 at 1"]),
        (np.array([{}], dtype=object), ["Python objects"]),
    ],
)
def test_a_file_of_another_split_is_a_clear_error(tmp_path, index, said):
    path = published(tmp_path, index)
    with pytest.raises(UserError) as error:
        training_images(TRAIN, settings(path))
    assert path in str(error.value) and "\n" not in str(error.value)
    for text in said:
        assert text in str(error.value)


def test_a_missing_file_names_the_setting():
    with raises_naming("nowhere.npy", "train.mismatched"):
        training_images(TRAIN, settings("nowhere.npy"))


def test_batches_have_the_wrong_images_and_validation_the_right_ones(tiny_data):
    data = data_of(tiny_data)
    wrong = training_images(data.train, settings(0.6))
    trainer = trainer_of(with_wrong_pairs(data, wrong), tiny_data / "state")
    seen = {}
    batches = trainer._epoch(0)
    for batch in (batches[number] for number in range(len(batches))):
        images = batch.regions.features[batch.image_index]
        seen |= dict(zip(batch.captions.tolist(), images, strict=True))
    assert sorted(seen) == data.train.captions.tolist()
    for caption, image in zip(data.train.captions, wrong, strict=True):
        own = data.regions.padded(data.train.images[[image]], "features")[0]
        np.testing.assert_array_equal(seen[caption][: len(own)], own)
    assert loop.validate(trainer.model, trainer.data, 8) == loop.validate(trainer.model, data, 8)


@pytest.mark.parametrize(
    ("model", "changes", "killed_at"),
    [
        ("tern", {"dropout": 0.2, "accumulate": 2}, 5),
        ("vse_infty", {"mlp_hidden": 8}, 10),
        ("sgraf", {"module": "sgr", "sim_dim": 8}, 15),
    ],
)
def test_a_killed_training_ends_with_the_same_weights_and_labels(tiny_data, monkeypatch, model, changes, killed_at):
    save_every_step(monkeypatch)
    data = data_of(tiny_data)
    data = with_wrong_pairs(data, training_images(data.train, settings(0.5)))
    changes |= {"name": "crcl", "temperature": 0.05, "label_epochs": 1, "epochs": 3}
    undisturbed, resumed = undisturbed_and_resumed(
        lambda name: trainer_of(data, tiny_data / name, model, **changes), killed_at
    )
    assert (resumed.loss.labels[data.train.captions] < 1).any()
    torch.testing.assert_close(resumed.loss.labels, undisturbed.loss.labels, atol=0, rtol=0)
    assert (undisturbed.loss.labels[48:] == 1).all()  # of captions that are not of the training split


def test_labels_tell_wrong_pairs_from_right_ones(tiny_data):
    data = data_of(tiny_data)
    wrong = training_images(data.train, settings(0.4, seed=2))
    changes = {"name": "crcl", "temperature": 0.05, "label_epochs": 5, "epochs": 12, "batch_size": 12}
    trainer = trainer_of(with_wrong_pairs(data, wrong), tiny_data / "state", "vsepp", **changes)
    trainer.fit(nothing)
    labels, right = trainer.loss.labels[:48].numpy(), wrong == data.train.caption_image
    assert labels[right].mean() > labels[~right].mean() + 0.3


def test_labels_of_a_model_that_knows_nothing_yet_are_a_warning(tiny_data, capsys):
    changes = {"name": "crcl", "temperature": 1.0, "lr": 1e-9, "batch_size": 12, "epochs": 3}
    for label_epochs, told in ((1, "epoch 2: "), (3, "")):
        trainer_of(data_of(tiny_data), tiny_data / str(label_epochs), label_epochs=label_epochs, **changes).fit(nothing)
        warnings = [line for line in capsys.readouterr().err.splitlines() if "soft label" in line]
        assert len(warnings) == bool(told)
        assert all(told in line for line in warnings)


def test_the_stage_keeps_the_permutation_with_the_matcher(featured_root):
    write_params(featured_root, "vsepp", train__epochs=1, train__mismatched=0.5, train__mismatched_seed=4)
    train.main()
    kept = np.load(featured_root / "models/matcher" / FILE)
    data = Split(np.arange(24), np.arange(48), np.repeat(np.arange(24), 2))
    np.testing.assert_array_equal(kept, training_images(data, settings(0.5, seed=4)))
    weights = (featured_root / "models/matcher/model.safetensors").read_bytes()

    (featured_root / "models/matcher" / FILE).rename(featured_root / "index.npy")  # the same pairs, of a file
    write_params(featured_root, "vsepp", train__epochs=1, train__mismatched="index.npy")
    train.main()
    assert (featured_root / "models/matcher/model.safetensors").read_bytes() == weights
    np.testing.assert_array_equal(np.load(featured_root / "models/matcher" / FILE), kept)

    write_params(featured_root, "vsepp", train__epochs=1)
    train.main()
    assert not (featured_root / "models/matcher" / FILE).exists()
    assert (featured_root / "models/matcher/model.safetensors").read_bytes() != weights
