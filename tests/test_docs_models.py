"""docs/models: what the pages name is there, and their settings are those of params.yaml and reproduction.yaml."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from crossmodal.models.registry import MODELS
from crossmodal.reproduction import read_reproduction

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/models"
PAGES = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in MODELS}
DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
RECIPES = read_reproduction(ROOT / "reproduction.yaml").all_recipes
SYMBOL = re.compile(r"\[`([\w.]+)`\]\(([^)#]+)\)")
ROW = re.compile(r"^\| `(\w+)\.(\w+)` \|(?: ([^|]+) \|)? ([^|]+) \|$", re.MULTILINE)


def symbols(path):
    """Names of a module's functions and classes, and Class.method; a method that is inherited is not among them."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("name", MODELS)
def test_symbols_are_in_the_files_named(name):
    named = SYMBOL.findall(PAGES[name])
    assert len(named) >= 3
    for symbol, target in named:
        path = (FOLDER / target).resolve()
        assert symbol in symbols(path), f"docs/models/{name}.md: {path.relative_to(ROOT)} has no {symbol}"


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_those_of_the_files(name):
    recipe = re.search(r"Recipe: `([\w-]+)`", PAGES[name])
    published = RECIPES[recipe[1]].settings if recipe else {}
    rows = ROW.findall(PAGES[name])
    assert rows
    for section, key, recipes_value, default in rows:
        where = f"docs/models/{name}.md: {section}.{key}"
        assert yaml.safe_load(default) == DEFAULTS[section][key], f"{where}: params.yaml has {DEFAULTS[section][key]}"
        if recipe:
            assert yaml.safe_load(recipes_value) == published[section][key], where


@pytest.mark.parametrize("name", MODELS)
def test_a_page_fits_a_screen(name):
    assert PAGES[name].count("\n") <= 62


def test_every_recipe_and_model_is_on_the_list():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\((\w+)\.md\)", text)) == set(MODELS)
    for recipe in re.findall(r"`([\w-]+-(?:flickr30k|coco))`", text):
        assert recipe in RECIPES
