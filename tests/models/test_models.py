"""What every model keeps to: masks, batches, checkpoints."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from assertions import raises_naming
from safetensors import safe_open

from crossmodal.batch import Regions, Words
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import MODELS, build_model
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(regions=10, words=8)
VARIANTS = [
    ("tern", {}),
    ("tern", {"shared": False}),
    ("tern", {"image_aggregation": "cls", "text_aggregation": "max", "positions": "sum"}),
    ("tern", {"positions": "none", "text_layers": 1}),
    ("tern", {"layers": 0, "visual_layers": 0}),
    ("teran", {}),
    ("teran", {"alignment": "MwSr", "shared": True}),
    ("teran", {"alignment": "symm"}),
    ("teran", {"alignment": "MrSw"}),
    ("teran", {"alignment": "sum"}),
    ("teran", {"alignment": "mean"}),
    ("teran", {"alignment": "scan_sentences"}),
    ("vse_infty", {}),
    ("vse_infty", {"mlp_hidden": 0}),
    ("vsepp", {}),
    ("vsepp", {"image_pool": "max", "text_pool": "max"}),
    ("vsepp", {"text_pool": "cls"}),
    ("scan", {}),
    ("scan", {"direction": "t2i", "pool": "lse"}),
    ("scan", {"direction": "i2t", "pool": "avg", "word_map": "none", "embed_dim": 8}),
    ("scan", {"direction": "i2t", "pool": "lse", "lambda_softmax": 4.0, "lambda_lse": 5.0}),
    ("imram", {"direction": "both"}),
    ("imram", {"direction": "i2t", "steps": 2, "word_map": "none", "embed_dim": 8}),
    ("sgraf", {}),
    ("sgraf", {"module": "saf", "region_norms": 3}),
    ("sgraf", {"module": "sgraf"}),
    ("vsrn", {"word_dim": 12}),
    ("vsrn", {"word_dim": 12, "layers": 0}),
    ("esa", {"mlp_hidden": 8}),
    ("esa", {"mlp_hidden": 0}),
    ("xdim", {"mlp_hidden": 8}),
    ("xdim", {"mlp_hidden": 0}),
    ("chan", {}),
    ("chan", {"attention_heads": 2, "pool": "lse"}),
    ("chan", {"coding": "both", "pool": "max", "word_map": "none", "embed_dim": 8}),
]
ALIGNED = {"chan", "imram", "scan", "sgraf", "teran", "xdim"}  # compare regions with words
ELSEWHERE = {"clip"}  # takes images and captions of one size alone: test_clip.py


def build(name, changes=()):
    torch.manual_seed(0)
    settings = getattr(PARAMS, name)
    small = {"embed_dim": 16, "visual_dim": 16, "feed_forward": 24}
    update = {key: value for key, value in small.items() if hasattr(settings, key)} | dict(changes)
    return build_model(name, settings.model_copy(update=update), SIZES).eval()


def test_every_model_has_a_section_and_a_variant():
    assert {name for name, _ in VARIANTS} == set(MODELS) - ELSEWHERE
    for name in MODELS:
        assert hasattr(PARAMS, name)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@torch.inference_mode()
def test_padding_changes_nothing(batch, name, changes):
    """Images and captions alone, unpadded, score as they do in padded batches full of rubbish."""
    model, (regions, words) = build(name, changes), batch
    rubbish = dataclasses.replace(regions, features=regions.features.masked_fill(~regions.mask[..., None], 1e3))
    noise = dataclasses.replace(words, features=words.features.masked_fill(~words.mask[..., None], -1e3))
    scores = model.similarity(model.encode_regions(rubbish), model.encode_text(noise))
    assert scores.shape == (4, 4)
    for row, column in itertools.product(range(4), range(4)):
        count, length = int(regions.mask[row].sum()), int(words.mask[column].sum())
        image = Regions(*(value[row : row + 1, :count] for value in vars(regions).values() if value is not None))
        caption = Words(words.features[column : column + 1, :length], words.mask[column : column + 1, :length])
        alone = model.similarity(model.encode_regions(image), model.encode_text(caption))
        torch.testing.assert_close(alone[0, 0], scores[row, column], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@torch.inference_mode()
def test_alignments_are_of_the_pair_alone(batch, name, changes):
    """Whatever stands in the padding, where a model has them; row by row, an image with a caption."""
    model, (regions, words) = build(name, changes), batch
    rubbish = dataclasses.replace(regions, features=regions.features.masked_fill(~regions.mask[..., None], 1e3))
    noise = dataclasses.replace(words, features=words.features.masked_fill(~words.mask[..., None], -1e3))
    weights = model.alignment(rubbish, noise)
    if name not in ALIGNED:
        assert weights is None
        return
    assert weights.shape == (4, 6, 5) and weights.min() >= 0
    assert not weights[~(regions.mask[:, :, None] & words.mask[:, None, :])].any()
    for row in range(4):
        count, length = int(regions.mask[row].sum()), int(words.mask[row].sum())
        image = Regions(*(value[row : row + 1, :count] for value in vars(regions).values() if value is not None))
        caption = Words(words.features[row : row + 1, :length], words.mask[row : row + 1, :length])
        alone = model.alignment(image, caption)[0]
        torch.testing.assert_close(alone, weights[row, :count, :length], atol=1e-5, rtol=1e-5)
        assert alone.max() > 0


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@torch.inference_mode()
def test_similarity_of_pooled_models_is_the_cosine(batch, name, changes):
    model, (regions, words) = build(name, changes), batch
    images, captions = model.encode_regions(regions), model.encode_text(words)
    assert model.pooled == (images.mask is None)
    if model.pooled:
        expected = F.cosine_similarity(images.vectors[:, None], captions.vectors[None], dim=-1)
        torch.testing.assert_close(model.similarity(images, captions), expected)


@pytest.mark.parametrize("positions", ["concat", "sum", "none"])
@torch.inference_mode()
def test_tern_sees_where_regions_are(batch, positions):
    model, (regions, _) = build("tern", {"positions": positions}), batch
    moved = dataclasses.replace(regions, boxes=regions.boxes.flip(1))
    same = torch.allclose(model.encode_regions(regions).vectors, model.encode_regions(moved).vectors, atol=1e-6)
    assert same == (positions == "none")


@torch.inference_mode()
def test_vsepp_knows_no_order(batch):
    model, (regions, _) = build("vsepp"), batch
    row = Regions(*(value[:1] for value in vars(regions).values() if value is not None))
    shuffled = Regions(*(value.flip(1) for value in vars(row).values() if value is not None))
    torch.testing.assert_close(model.encode_regions(row).vectors, model.encode_regions(shuffled).vectors)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@torch.inference_mode()
def test_checkpoint_round_trip(tmp_path, batch, name, changes):
    model, (regions, words) = build(name, changes), batch
    settings = getattr(PARAMS, name).model_dump() | {"embed_dim": 16} | dict(changes)
    if name in ("tern", "teran"):
        settings |= {"visual_dim": 16, "feed_forward": 24}
    save_matcher(tmp_path, model, MatcherConfig(name, settings, SIZES, "key", "bert", {}))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() is None  # several entries stand in another order in every process
        assert set(file.keys()) <= model.state_dict().keys()
    read, config = load_matcher(tmp_path)
    assert config.key == "key"
    assert not read.training
    torch.testing.assert_close(read.encode_regions(regions).vectors, model.encode_regions(regions).vectors)
    torch.testing.assert_close(read.encode_text(words).vectors, model.encode_text(words).vectors)


def test_weights_of_another_model_are_refused(tmp_path):
    config = MatcherConfig("tern", PARAMS.tern.model_dump(), SIZES, "key", "bert", {})
    save_matcher(tmp_path, build("vsepp"), config)
    with raises_naming("model.safetensors", "tern"):
        load_matcher(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_and_damaged_files_are_named(tmp_path, name):
    settings = PARAMS.vsepp.model_dump() | {"embed_dim": 16}
    save_matcher(tmp_path, build("vsepp"), MatcherConfig("vsepp", settings, SIZES, "key", "bert", {}))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:40])
    with raises_naming(path, "readable"):
        load_matcher(tmp_path)
    path.unlink()
    with raises_naming(path, "not found"):
        load_matcher(tmp_path)
