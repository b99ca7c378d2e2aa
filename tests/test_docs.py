"""README.md and docs: their links lead somewhere, their commands are taken, and the settings they name are there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from crossmodal.cli import parser
from crossmodal.files.checked_yaml import dotted

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
SETTINGS = dotted(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
ADDED = "late.embed_dim"  # by the reader of adding-a-model.md


def commands(text):
    """Lines of code that begin with crossmodal, as a shell splits them."""
    text = text.replace("\\\n", " ")
    for line in re.findall(r"(?m)^ {4,}(?:\$ )?crossmodal (.*)$", text):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path = (ROOT / page).parent / target.partition("#")[0]
        assert target.startswith("https://") or path.exists(), target


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if any(commands(text))])
def test_commands_are_taken(page):
    """By the parser of arguments; nothing runs."""
    for words in commands(PAGES[page]):
        parser().parse_args(words)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "-S " in text])
def test_settings_are_there(page):
    """What stands behind -S; what begins with + is for keys that params.yaml does not have."""
    keys = set(re.findall(r"-S '?([\w.]+)=", PAGES[page]))
    assert keys - {ADDED} <= SETTINGS.keys()


def test_the_readme_names_the_commands_that_set_all_up():
    for target in ("repro", "test"):
        assert re.search(rf"^ +\$ make {target}\b", PAGES["README.md"], re.MULTILINE), target
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_readmes_pictures_are_few_and_small():
    """A clone carries every version of them."""
    pictures = [ROOT / target for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGES["README.md"])]
    assert 1 <= len(pictures) <= 4
    assert max(path.stat().st_size for path in pictures) < 300_000
