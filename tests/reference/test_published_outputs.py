"""Outputs of the published implementations on small random weights, reproduced.

Reads every .npz of the folder REFERENCE_DIR (default: the fixtures beside this file); the file's name chooses
the check, sizes come from the arrays.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.evaluation import metrics, relevance, seed_metrics
from crossmodal.losses import hinge_loss
from crossmodal.models.base import InputSizes, Regions, Words
from crossmodal.models.published import tern_state
from crossmodal.models.tern import TernMatcher
from crossmodal.params import Tern

FOLDER = Path(os.environ.get("REFERENCE_DIR", Path(__file__).parent / "fixtures"))
TOLERANCE = 1e-5


def arrays(name):
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def test_every_fixture_has_a_check():
    known = {"tern", "metrics"}
    later = {"teran", "sgraf_sgr", "sgraf_saf", "vse_infty"}  # models that this version does not have
    assert {path.stem for path in FOLDER.glob("*.npz")} <= known | later


def length_mask(lengths, longest):
    return torch.arange(longest) < lengths[:, None]


def layer_count(names, prefix):
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def tern_of(data):
    weights = {name: value for name, value in data.items() if name.startswith("img_txt_enc.")}
    encoder = "img_txt_enc.transformer_encoder_1.layers."
    settings = Tern(
        embed_dim=weights["img_txt_enc.cap_proj.weight"].shape[0],
        visual_dim=weights["img_txt_enc.img_enc.pos_encoding_image.map.2.weight"].shape[0],
        visual_layers=layer_count(weights, "img_txt_enc.img_enc.transformer_encoder.layers."),
        text_layers=0,
        layers=layer_count(weights, encoder),
        heads=4,
        feed_forward=weights[f"{encoder}0.linear1.weight"].shape[0],
        shared=not any("transformer_encoder_2" in name for name in weights),
        positions="concat",
        location_scale=1.0,
        aggregation="cls",
        dropout=0.1,
    )
    sizes = InputSizes(regions=data["regions"].shape[2], words=data["token_features"].shape[2])
    model = TernMatcher(settings, sizes).eval()
    model.load_state_dict(tern_state(weights))
    # slot 0 of the fixture is the CLS slot, which the model adds itself
    mask = length_mask(data["region_lengths"], data["regions"].shape[1])[:, 1:]
    regions = Regions(data["regions"][:, 1:], data["boxes"][:, 1:], mask)
    words = Words(data["token_features"], length_mask(data["token_lengths"], data["token_features"].shape[1]))
    return model, regions, words


@torch.inference_mode()
def test_tern():
    data = arrays("tern")
    model, regions, words = tern_of(data)
    images, captions = model.encode_images(regions), model.encode_text(words)
    for ours, published in [
        (images.vectors, "image_embeddings"),
        (captions.vectors, "caption_embeddings"),
        (model.region_set(regions), "region_set"),
        (model.word_set(words), "word_set"),
    ]:
        torch.testing.assert_close(ours, data[published], atol=TOLERANCE, rtol=0)
    loss = hinge_loss(model.similarity(images, captions), margin=0.2, hardest=True)
    assert abs(loss.item() - data["loss_hard_negative"].item()) <= 1e-4


def test_metrics():
    data = {name: value.numpy() for name, value in arrays("metrics").items()}
    similarity = data["similarity"]
    caption_image = np.arange(similarity.shape[1]) // 5
    i2t = metrics.i2t_ranks(similarity, caption_image)
    t2i = metrics.t2i_ranks(similarity, caption_image)
    np.testing.assert_array_equal(i2t, data["i2t_ranks"])
    np.testing.assert_array_equal(t2i, data["t2i_ranks"])
    np.testing.assert_allclose(list(metrics.summarise(i2t).values()), data["i2t"], atol=TOLERANCE)
    np.testing.assert_allclose(list(metrics.summarise(t2i).values()), data["t2i"], atol=TOLERANCE)
    np.testing.assert_allclose(relevance.ndcg(similarity.T, data["relevance"]), data["ndcg25_t2i"], atol=TOLERANCE)
    np.testing.assert_allclose(relevance.ndcg(similarity, data["relevance"].T), data["ndcg25_i2t"], atol=TOLERANCE)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_seed_metrics(direction):
    data = {name: value.numpy() for name, value in arrays("metrics").items()}
    similarity = data["similarity"]
    relevant = np.arange(len(similarity))[:, None] == np.arange(similarity.shape[1]) // 5
    if direction == "t2i":
        similarity, relevant = similarity.T, relevant.T
    ours = seed_metrics.seed_metrics(similarity, relevant)
    published = {
        name.removeprefix(f"seed_{direction}_"): float(value)
        for name, value in data.items()
        if name.startswith(f"seed_{direction}_")
    }
    assert published.keys() == ours.keys()
    for name, value in published.items():
        assert ours[name] == pytest.approx(value, abs=TOLERANCE), name
