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


def anchors(text):
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """To a file or folder that is there, and on a page to one of its headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES)
def test_what_a_link_names_is_defined_in_its_file(page):
    """[`Class.method`](file.py): the file has a class or function, or a constant, of that name."""
    for symbol, target in re.findall(r"\[`([\w.]+)`\]\(([^)\s]+\.py)\)", PAGES[page]):
        if symbol.endswith(".py"):
            continue
        source = ((ROOT / page).parent / target).read_text(encoding="utf-8")
        for name in symbol.split("."):
            assert re.search(rf"(?m)^\s*(?:class|def) {name}\b|^\s*(?:self\.)?{name}(?::| =)", source), (symbol, target)


def test_the_graph_of_the_stages_is_that_of_dvc_yaml():
    """docs/how-it-works.md has it as `dvc dag --mermaid` draws it."""
    text = PAGES["docs/how-it-works.md"]
    names = dict(re.findall(r'(node\d+)\["(\w+)"\]', text))
    drawn = {(names[a], names[b]) for a, b in re.findall(r"(node\d+)-->(node\d+)", text)}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    makers = {
        (out if isinstance(out, str) else next(iter(out))): name
        for name, stage in stages.items()
        for out in stage.get("outs", ())
    }
    arrows = {
        (maker, name)
        for name, stage in stages.items()
        for dep in stage.get("deps", ())
        for out, maker in makers.items()
        if Path(dep).is_relative_to(out)
    }
    assert drawn == arrows


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
