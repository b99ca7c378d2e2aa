"""docs/models: what the pages name is there, and their settings are those of params.yaml and reproduction.yaml."""

import ast
import re
from pathlib import Path

import pytest

from crossmodal.models.registry import MODELS
from crossmodal.reproduction import read_reproduction

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/models"
PAGES = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in MODELS}
RECIPES = read_reproduction(ROOT / "reproduction.yaml").all_recipes
SYMBOL = re.compile(r"\[`([\w.]+)`\]\(([^)#]+)\)")


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


def test_every_recipe_and_model_is_on_the_list():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\((\w+)\.md\)", text)) == set(MODELS)
    for recipe in re.findall(r"`([\w-]+-(?:flickr30k|coco))`", text):
        assert recipe in RECIPES
