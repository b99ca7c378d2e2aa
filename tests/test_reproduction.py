"""reproduction.yaml: every recipe is valid, complete and trains at its true sizes; what is wrong is said in a line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import assert_names
from transformers import BertConfig

from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text
from crossmodal.recipes.recipes import read_recalls, read_reproduction, resolved
from crossmodal.recipes.tables import comparison, listing, markdown
from crossmodal.runtime import seed_everything
from crossmodal.settings.params import Params
from crossmodal.training import loop
from crossmodal.training.validation import TrainingData

ROOT = Path(__file__).resolve().parents[1]
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
REPRODUCTION = read_reproduction(ROOT / "reproduction.yaml")
RECIPES = REPRODUCTION.all_recipes
# What does not change a result, or is of losses that no recipe has.
MACHINE = {"train.workers", "train.devices", "train.compile"}
OF_HINGE = ("margin", "negatives", "all_negatives_epochs", "mask_same_image")
OF_INFONCE = ("temperature", "mask_same_image")


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
        ("teran-flickr30k", {"train.validation_images": 0}),  # its code has the 1,014
    ],
)
def test_recipes_train_as_the_published_code(name, expected):
    """woodfrog/vse_infty lib/vse.py of both branches, mesnico/TERN and TERAN train.py and data.py."""
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
    return yaml.safe_dump({**sizes, "model": settings["model"], "layers": settings["bert"]["layers"]})


DISTINCT = {shapes(recipe): name for name, recipe in reversed(REPRODUCTION.recipes.items())}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Regions of bottom-up features' size and token ids, of four images: 36 x 2,048 and at most 12."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    regions = StoreWriter(folder / "regions", {"features": ("float16", (2048,)), "boxes": ("float32", (4,))})
    words = StoreWriter(folder / "captions", {"token_ids": ("int32", ())})
    for _ in range(4):
        boxes = np.sort(rng.random((36, 2, 2)), axis=1).reshape(36, 4)
        regions.append({"features": rng.random((36, 2048)), "boxes": boxes})
        words.append({"token_ids": rng.integers(1, 50, rng.integers(6, 13))})
    regions.close()
    words.close()
    return FeatureStore(folder / "regions"), FeatureStore(folder / "captions")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_two_steps_at_its_true_sizes(stores, tmp_path, monkeypatch, name):
    """Sizes of features, model and words are the recipe's; of layers that are all alike there is one."""
    params = params_of(RECIPES[name], "regions.backend=grid")  # the features are made up here
    model_settings = params.model_settings
    alike = {key: 1 for key in ("visual_layers", "layers") if getattr(model_settings, key, 0) > 1}
    regions, words = stores
    rows = np.arange(4)
    train, val = Split(rows[:2], rows[:2], rows[:2]), Split(rows[2:], rows[2:], rows[:2])
    data = TrainingData(regions, words, rows, train, val, TokenTable(np.zeros(50, dtype=bool), 49, ends=True))
    if params.captions.encoder == "bigru":
        text, size = {"vocabulary": 50, **params.bigru.model_dump()}, params.bigru.hidden
    else:
        config = BertConfig(num_hidden_layers=1, vocab_size=50)
        text, size = {"config": {**config.to_diff_dict(), "model_type": "bert"}}, config.hidden_size
    seed_everything(0)
    model = build_model(
        params.model,
        model_settings.model_copy(update=alike),
        InputSizes(regions=2048, words=size),
        lambda: build_text(params.captions.encoder, text),
    )
    settings = params.train.model_copy(update={"epochs": 2, "batch_size": 2, "lr": 1e-3, "warmup_steps": 0})
    rsums = iter(range(1, 100))  # the last epoch is the best
    validate = loop.validate
    monkeypatch.setattr(loop, "validate", lambda *arguments: validate(*arguments) | {"rsum": next(rsums)})
    monkeypatch.setattr(loop.Trainer, "_save", lambda self: None)
    for member in model.members():
        before = {key: value.clone() for key, value in member.named_parameters()}
        trainer = loop.Trainer(member, data, settings, params.loss, seed=0, resume=tmp_path)
        history = trainer.fit(lambda metrics, step: None)
        assert [row["epoch"] for row in history] == [1, 2]
        assert all(row["loss"] > 0 for row in history)
        still = [key for key, value in member.named_parameters() if value.ndim > 1 and torch.equal(value, before[key])]
        assert not still


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
    with pytest.raises(UserError, match=r"test\.json: i2t\.0: input should be a finite number, found nan"):
        read_recalls("COCO", path)
    path.write_text(json.dumps({"i2t": recalls, "images": 5000}))
    with pytest.raises(UserError, match=r"test\.json: expected recalls i2t, t2i and rsum"):
        read_recalls("COCO", path)


def test_differences_are_ours_less_theirs():
    expected = RECIPES["sgraf-flickr30k"].expected["all"]
    worse = expected.model_copy(update={"i2t": (70.0, 94.1, 97.4), "rsum": 491.8})
    lines = comparison(expected, worse, "published").splitlines()
    assert lines[1].split() == ["published", *map(str, (77.8, 94.1, 97.4, 58.5, 83.0, 88.8, 499.6))]
    assert lines[3].split() == ["difference", "-7.8", *["+0.0"] * 5, "-7.8"]
    assert len({len(line) for line in lines}) == 1
