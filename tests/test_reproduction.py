"""reproduction.yaml: every recipe is valid, complete and trains at its true sizes; what is wrong is said in a line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import assert_names, raises_naming
from transformers import BertConfig

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.base import InputSizes
from crossmodal.models.grid_backbone import BackboneSettings, build_image
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text
from crossmodal.models.timm_network import Cut, create_network, feature_map, patch_size
from crossmodal.recipes.recipes import read_recalls, read_reproduction, resolved
from crossmodal.recipes.tables import comparison, listing, markdown
from crossmodal.runtime import seed_everything
from crossmodal.settings.params import Params
from crossmodal.training import loop
from crossmodal.training.batches import TrainingData

ROOT = Path(__file__).resolve().parents[1]
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
REPRODUCTION = read_reproduction(ROOT / "reproduction.yaml")
RECIPES = REPRODUCTION.all_recipes
# What does not change a result, or is of losses that no recipe has.
MACHINE = {"train.features", "train.workers", "train.devices", "train.compile"}
OF_HINGE = ("margin", "negatives", "all_negatives_epochs", "views", "candidates", "mask_same_image")
OF_INFONCE = ("temperature", "candidates", "mask_same_image")


def params_of(recipe, *more):
    return resolved(PARAMS, [*recipe.overrides(), *(f"{key}=somewhere" for key in recipe.needs), *more])


@pytest.mark.parametrize("name", RECIPES)
def test_its_settings_come_out_as_they_stand(name):
    """DVC's parser puts them into params.yaml, and params.py accepts them."""
    recipe = RECIPES[name]
    params = params_of(recipe).model_dump(mode="json")
    for key, value in recipe.settings.items():
        for inner, expected in value.items() if isinstance(value, dict) else [(None, value)]:
            assert (params[key] if inner is None else params[key][inner]) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_no_default_decides_it(name):
    """Every setting of the model, the words, the training and the loss is named."""
    recipe = RECIPES[name]
    named = {key for key, value in recipe.settings.items() if not isinstance(value, dict)}
    named |= {f"{key}.{inner}" for key, value in recipe.settings.items() if isinstance(value, dict) for inner in value}
    encoder = recipe.settings["captions"]["encoder"]
    sections = [recipe.settings["model"], recipe.settings["dataset"], "train"]
    sections += [encoder] if encoder != "bert" else []
    wanted = {f"{key}.{inner}" for key in sections for inner in Params.model_fields[key].annotation.model_fields}
    wanted |= {f"loss.{key}" for key in (OF_HINGE if recipe.settings["loss"]["name"] == "hinge" else OF_INFONCE)}
    wanted |= {"seed", "model", "dataset", "loss.name", "captions.max_tokens", "bert.layers", "evaluate.index"}
    wanted |= {"captions.vocabulary", "captions.min_count"} if encoder == "bigru" else {"bert.source"}
    if recipe.settings["bert"].get("source") == "fit":
        wanted |= {f"bert.{key}" for key in type(params_of(recipe).bert).model_fields}
    if trained := recipe.settings.get("grid", {}).get("trained"):
        wanted |= {f"grid_finetune.{key}" for key in type(params_of(recipe).grid_finetune).model_fields}
        assert trained
    assert wanted - MACHINE - set(recipe.needs) <= named


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vse_infty-bigru-flickr30k",
            {"train.weight_decay": 1e-2, "train.decay_biases": True, "vse_infty.word_map": "none"},
        ),
        (
            "vse_infty-bigru-coco",
            {"train.weight_decay": 1e-2, "train.decay_biases": True, "vse_infty.word_map": "none"},
        ),
        (
            "vse_infty-bert-coco",
            {"train.weight_decay": 1e-4, "train.decay_biases": True, "vse_infty.word_map": "linear"},
        ),
        ("vse_infty-bert-flickr30k", {"vse_infty.norm_padding": True, "train.word_dropout_kind": "words"}),
        ("tern-coco", {"tern.layers_start": "copies", "train.warmup_offset": 1, "train.best": "t2i"}),
        ("teran-flickr30k", {"teran.layers_start": "copies", "train.warmup_offset": 1, "train.best": "rsum"}),
        ("esa-bert-flickr30k", {"loss.views": 2, "train.weight_decay": 1e-4, "esa.dropout": 0.1}),
        ("esa-bigru-coco", {"train.weight_decay": 1e-2, "esa.dropout": 0, "bigru.dropout": 0.1}),
        ("chan-bert-flickr30k", {"loss.margin": 0.05, "chan.pool": "mean", "train.batch_size": 128}),
        ("chan-bigru-coco", {"chan.attention_heads": 8, "chan.pool": "lse", "train.batch_size": 384}),
        ("teran-flickr30k", {"train.validation_images": 0}),  # its code has the 1,014
    ],
)
def test_recipes_train_as_the_published_code(name, expected):
    """woodfrog/vse_infty and ESA lib/vse.py, CHAN scripts/train.sh, mesnico/TERN and TERAN train.py and data.py."""
    settings = RECIPES[name].settings
    for key, value in expected.items():
        section, inner = key.split(".")
        assert settings[section][inner] == value


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-coco")])
def test_coco_is_validated_on_a_thousand_images(name):
    assert RECIPES[name].settings["train"]["validation_images"] == 1000


def shapes(recipe):
    """What two recipes share whose tensors have the same sizes."""
    settings, encoder = recipe.settings, recipe.settings["captions"]["encoder"]
    sizes = {name: settings[name] for name in {settings["model"], encoder} & settings.keys()}
    inputs = {"features": recipe.features, "words": recipe.words, "layers": settings["bert"]["layers"]}
    return yaml.safe_dump({**sizes, **inputs, "model": settings["model"], "views": settings["loss"].get("views", 1)})


DISTINCT = {shapes(recipe): name for name, recipe in reversed(RECIPES.items())}
TRAINED = [name for name, recipe in RECIPES.items() if recipe.settings.get("grid", {}).get("trained", 0)]
FROZEN_WORDS = {"all-MiniLM-L6-v2, frozen": 384}  # values of a token, by what a recipe says of its words


def grid_network(settings):
    """The timm network that ``grid`` names, its feature map's cells (h, w) and values, without any computation."""
    with torch.device("meta"):
        network = create_network(settings.model, settings.kwargs)
        size = settings.image_size
        _, values, *cells = feature_map(network, torch.zeros(1, 3, size, size)).shape
    return network, cells, values


def region_size(recipe, params):
    """Regions of an image and their values: of bottom-up features, or of the feature map of a grid network."""
    if recipe.settings["regions"]["backend"] != "grid":
        return 36, 2048
    _, (high, wide), values = grid_network(params.grid)
    return high * wide, values


def made_up_data(folder, regions, dtype, size, words):
    """Four images, each with ``regions`` of this size, and their captions of at most 12 tokens."""
    rng, high = np.random.default_rng(0), 256 if dtype == "uint8" else 1
    region_arrays = {"features": (dtype, (size,)), "boxes": ("float32", (4,))}
    word_arrays = {"features": ("float16", (words,))} if words else {"token_ids": ("int32", ())}
    stores = [StoreWriter(folder / "regions", region_arrays), StoreWriter(folder / "captions", word_arrays)]
    for _ in range(4):
        boxes, tokens = np.sort(rng.random((regions, 2, 2)), axis=1).reshape(regions, 4), rng.integers(6, 13)
        stores[0].append({"features": (high * rng.random((regions, size))).astype(dtype), "boxes": boxes})
        stores[1].append(
            {"features": rng.random((tokens, words))} if words else {"token_ids": rng.integers(1, 50, tokens)}
        )
    for store in stores:
        store.close()
    rows = np.arange(4)
    train, val = Split(rows[:2], rows[:2], rows[:2]), Split(rows[2:], rows[2:], rows[:2])
    table = None if words else TokenTable(np.zeros(50, dtype=bool), 49, ends=True)
    return TrainingData(FeatureStore(folder / "regions"), FeatureStore(folder / "captions"), rows, train, val, table)


def train_two_steps(name, folder, monkeypatch, image=None):
    """Train a recipe's model for two epochs of a step; every weight has to move. ``image``: of a trained backbone."""
    recipe = RECIPES[name]
    params = params_of(recipe, "regions.backend=grid")  # the features are made up here
    model_settings, encoder = params.model_settings, params.captions.encoder
    alike = {key: 1 for key in ("visual_layers", "layers") if getattr(model_settings, key, 0) > 1}
    if encoder == "bigru":
        text, words = {"vocabulary": 50, **params.bigru.model_dump()}, params.bigru.hidden
    elif encoder == "bert_finetune":
        config = BertConfig(num_hidden_layers=1, vocab_size=50)
        text, words = {"config": {**config.to_diff_dict(), "model_type": "bert"}}, config.hidden_size
    else:
        fitted = params.bert.source == "fit"
        text, words = {}, params.bert.hidden_size if fitted else FROZEN_WORDS[recipe.words]
    regions, size = region_size(recipe, params)
    rows, dtype, values = (
        (image["cut"]["rows"], "uint8", image["cut"]["channels"]) if image else (regions, "float16", size)
    )
    data = made_up_data(folder, rows, dtype, values, 0 if text else words)
    seed_everything(0)
    model = build_model(
        params.model,
        model_settings.model_copy(update=alike),
        InputSizes(regions=size, words=words),
        lambda: build_text(encoder, text),
        lambda: build_image(image or {}),
    )
    settings = params.train.model_copy(update={"epochs": 2, "batch_size": 2, "lr": 1e-3, "warmup_steps": 0})
    rsums = iter(range(1, 100))  # the last epoch is the best
    validate = loop.validate
    monkeypatch.setattr(loop, "validate", lambda *arguments: validate(*arguments) | {"rsum": next(rsums)})
    monkeypatch.setattr(loop.Trainer, "_save", lambda self: None)
    for member in model.members():
        before = {key: value.clone() for key, value in member.named_parameters()}
        how = loop.TrainerSettings(settings, params.loss, seed=0)
        trainer = loop.Trainer(member, data, how, resume=folder / "state")
        history = trainer.fit(lambda metrics, step: None)
        assert [row["epoch"] for row in history] == [1, 2]
        assert all(row["loss"] > 0 for row in history)
        still = [key for key, value in member.named_parameters() if value.ndim > 1 and torch.equal(value, before[key])]
        assert not still


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_two_steps_at_its_true_sizes(tmp_path, monkeypatch, name):
    """Sizes of features, model and words are the recipe's; of layers that are all alike there is one.

    Where a backbone is trained, its feature maps are made up; the backbone itself has a test below.
    """
    train_two_steps(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_two_steps_with_its_backbone(tmp_path, monkeypatch, name):
    """From the pixels of photographs of the true size, with the whole network, of random weights."""
    if not os.environ.get("TRAIN_BACKBONES"):
        pytest.skip(f"the network of {name} takes up to minutes on a CPU: TRAIN_BACKBONES=1 runs it")
    params = params_of(RECIPES[name])
    grid, own = params.grid, params.grid_finetune
    assert grid.trained == "all"
    _, cells, _ = grid_network(grid)
    patch = patch_size(grid.image_size)
    cut = Cut(
        trained="all", layout="pixels", channels=3 * patch**2, rows=(grid.image_size // patch) ** 2, cells=list(cells)
    )
    image = BackboneSettings(
        backend="grid",
        model=grid.model,
        kwargs=grid.kwargs,
        image_size=grid.image_size,
        mean=list(grid.mean or [0.5] * 3),
        std=list(grid.std or [0.5] * 3),
        cut=cut,
        batch_norm=own.batch_norm,
        crop_scale=own.crop_scale,
        flip=own.flip,
        checkpointing=own.checkpointing,
        region_dropout=params.train.region_dropout,
    )
    train_two_steps(name, tmp_path, monkeypatch, image.model_dump())


def changed(tmp_path, change):
    content = yaml.safe_load((ROOT / "reproduction.yaml").read_text())
    change(content)
    path = tmp_path / "reproduction.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["recipes"]["sgr-coco"].update(parts=["cocoa"]), ["recipes.sgr-coco", "'cocoa'"]),
        (lambda c: c["recipes"]["sgr-coco"]["published"]["all"].update(rsum=1), ["sgr-coco", "419.6", "rsum"]),
        (
            lambda c: c["recipes"]["sgr-coco"]["published"]["all"].update(i2t=[56.9, 83.2]),
            ["sgr-coco", "i2t", "2", "3"],
        ),
        (lambda c: c["recipes"]["sgr-coco"]["published"]["all"].update(rsum=None), ["sgr-coco", "rsum"]),
        (lambda c: c["recipes"]["chan-bert-coco"]["published"]["all"].update(rsum=266.4), ["chan-bert-coco", "rsum"]),
        (lambda c: c["recipes"]["sgr-coco"].update(published={}), ["sgr-coco", "published", "ours"]),
        (lambda c: c["recipes"].update(c["flickr8k"]), ["-flickr8k", "recipes"]),
        (lambda c: c["flickr8k"]["tern-flickr8k"]["overlap"].update(of=7), ["tern-flickr8k.overlap", "4533", "7"]),
    ],
)
def test_a_mistake_is_named(tmp_path, change, expected):
    path = changed(tmp_path, change)
    with pytest.raises(UserError) as error:
        read_reproduction(path)
    assert_names(error, path, *expected)


@pytest.mark.parametrize("name", REPRODUCTION.flickr8k)
def test_what_the_encoders_have_read_is_said(name):
    """MiniLM has read nine in ten test captions; a BERT fitted here those that training captions happen to be."""
    recipe = RECIPES[name]
    fitted = recipe.settings["bert"].get("source") == "fit"
    assert "MiniLM" not in recipe.words or not fitted
    assert (recipe.overlap.captions, recipe.overlap.of) == (62 if fitted else 4533, 5000)
    row = next(line for line in markdown(REPRODUCTION).splitlines() if line.startswith(f"| `{name}` |"))
    assert row.endswith(f"| {recipe.overlap.captions:,} of 5,000 |")
    assert next(line for line in listing(REPRODUCTION).splitlines() if line.startswith(name)).endswith("of 5,000")


def test_an_empty_mapping_is_a_setting():
    recipe = RECIPES["tern-flickr8k"]
    settings = recipe.settings | {"grid": {"kwargs": {}}}
    assert "grid.kwargs={}" in recipe.model_copy(update={"settings": settings}).overrides()


def test_later_parts_and_own_settings_win():
    settings = RECIPES["saf-coco"].settings
    assert (settings["bigru"]["dropout"], settings["sgraf"]["module"]) == (0.4, "saf")
    assert RECIPES["vse_infty-bigru-coco"].settings["bigru"]["dropout"] == 0
    assert RECIPES["vse_infty-bert-coco"].settings["train"]["optimizer"] == "adamw"


def test_figures_of_a_run(tmp_path):
    recalls = {"r1": 10.12345, "r5": 20.0, "r10": 30.0, "medr": 3.0}
    metrics = {"i2t": recalls, "t2i": recalls, "rsum": 120.2469, "images": 5000}
    path = tmp_path / "test.json"
    path.write_text(json.dumps(metrics))
    assert list(read_recalls("COCO", path)) == ["all"]
    assert read_recalls("COCO", path)["all"].i2t == (10.12, 20.0, 30.0)
    path.write_text(json.dumps(metrics | {"folds": {**metrics, "t2i": {"r1": 1, "r5": 2, "r10": 3}, "rsum": 66.12}}))
    assert read_recalls("COCO", path)["folds"].t2i == (1, 2, 3)
    path.write_text(json.dumps(metrics | {"i2t": recalls | {"r1": float("nan")}}))
    with raises_naming("test.json", "i2t.0"):
        read_recalls("COCO", path)
    path.write_text(json.dumps({"i2t": recalls, "images": 5000}))
    with raises_naming("test.json", "i2t", "t2i", "rsum"):
        read_recalls("COCO", path)


def test_differences_are_ours_less_theirs():
    expected = RECIPES["sgraf-flickr30k"].expected["all"]
    worse = expected.model_copy(update={"i2t": (70.0, 94.1, 97.4), "rsum": 491.8})
    lines = comparison(expected, worse, "published").splitlines()
    assert lines[1].split() == ["published", *map(str, (77.8, 94.1, 97.4, 58.5, 83.0, 88.8, 499.6))]
    assert lines[3].split() == ["difference", "-7.8", *["+0.0"] * 5, "-7.8"]
    assert len({len(line) for line in lines}) == 1
