"""A package pycocoevalcap with a dictionary of five words, and a java that knows a few captions."""

import importlib.util
import os
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("stand_in_java.py")
SYNSETS = "auto\n1\nautomobile\n1 7\ncar\n1 2 3\ncable_car\n3\nchild\n5\nred\n4\n"
EXCEPTIONS = "child\nchildren kids\n"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Folder of the stand-in: ``java`` and the files that it reads and writes, ``pycocoevalcap`` beside them."""
    folder = tmp_path / "stand in"
    package = folder / "pycocoevalcap"
    for path in ("spice/spice-1.0.jar", "tokenizer/stanford-corenlp-3.4.1.jar"):
        (package / path).parent.mkdir(parents=True)
        (package / path).touch()
    (package / "spice/lib").mkdir()
    for part in ("", "-models"):
        (package / f"spice/lib/stanford-corenlp-3.6.0{part}.jar").touch()
    with zipfile.ZipFile(package / "spice/lib/Meteor-1.5.jar", "w") as archive:
        archive.writestr("synonym/english.synsets", SYNSETS)
        archive.writestr("synonym/english.exceptions", EXCEPTIONS)
    (folder / "java_version").write_text("11.0.22")
    (folder / "java.py").write_text(STAND_IN.read_text())
    java = folder / "java"
    java.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/java.py" "$@"\n')
    java.chmod(0o755)
    spec = ModuleSpec("pycocoevalcap", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "pycocoevalcap" else find(name))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
