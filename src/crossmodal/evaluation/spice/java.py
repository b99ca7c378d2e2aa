"""SPICE's own program: captions to scene graphs, by the jars that the package pycocoevalcap brings or downloads.

Without the program's cache: a caption is parsed twice, alone and with its image's others, however many the pairs. Its
results are written by the JavaScript engine that Java had up to 14.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json
from crossmodal.runtime import progress

# Of tuples (object,), (object, attribute) or (object, relation, object); merged words are "car/auto".
Graph = list[tuple[str, ...]]

_MEMORY = "-Xmx8G"  # as pycocoevalcap has it
_NEWEST_JAVA = 14
_CHUNK = 2_000  # captions and images per call; each call takes seconds to load the parser
# coco-caption's list, which is compared with tokens in lower case: brackets stay.
_MARKS = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}


@dataclass(frozen=True)
class Scored:
    """An image's graph, the graph of a caption of another image, and the F that SPICE itself gives the two."""

    image: Graph
    caption: Graph
    f: float


class Spice:
    """The program, found and checked; a UserError where pycocoevalcap, a jar or a suitable Java is missing."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("pycocoevalcap")
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                "SPICE needs the package pycocoevalcap, which is not installed: pip install 'crossmodal[spice]'"
            )
        package = Path(spec.submodule_search_locations[0])
        self._jar = package / "spice/spice-1.0.jar"
        self._tokenizer = package / "tokenizer/stanford-corenlp-3.4.1.jar"
        self.meteor = package / "spice/lib/Meteor-1.5.jar"
        parser = [package / f"spice/lib/stanford-corenlp-3.6.0{part}.jar" for part in ("", "-models")]
        for path in (self._jar, self._tokenizer, self.meteor, *parser):
            if not path.is_file():
                raise UserError(
                    f"{path}: not found"
                    + ("; python -m pycocoevalcap.spice.get_stanford_models downloads it" if path in parser else "")
                )
        self._java = shutil.which("java")
        if self._java is None:
            raise UserError(f"SPICE needs Java, 8 to {_NEWEST_JAVA}: no java on the PATH")
        version = _java_version(self._java)
        if version > _NEWEST_JAVA:
            raise UserError(
                f"{self._java}: Java {version}; SPICE needs 8 to {_NEWEST_JAVA}, newer ones have no JavaScript engine, "
                "with which it writes results. Put an older one first on the PATH"
            )

    def parse(
        self, captions: Sequence[str], references: Sequence[Sequence[str]], work: Path
    ) -> tuple[list[Graph], list[Scored]]:
        """The graph of every caption, and of every image that of its references, scored with a caption.

        Args:
            captions: C captions. references: the captions of each of N images.
            work: folder for finished parts, which another call with the same captions reuses.

        Raises:
            UserError: the program fails.
        """
        work.mkdir(parents=True, exist_ok=True)
        texts = self._tokens([*captions, *(text for column in references for text in column)])
        singles, rest = texts[: len(captions)], iter(texts[len(captions) :])
        together = [[next(rest) for _ in column] for column in references]
        # The first caption after an image's own, where captions are in the order of images.
        following = 0
        items: list[dict[str, Any]] = [{"test": text, "refs": []} for text in singles]
        for column in together:
            following += len(column)
            items.append({"test": singles[following % len(singles)], "refs": column})
        results: list[dict[str, Any]] = []
        for start in progress(range(0, len(items), _CHUNK), desc="SPICE parses", leave=False):
            results += self._parsed(items[start : start + _CHUNK], work / f"{start:09d}.json")
        graphs = [_graph(result["test_tuples"]) for result in results[: len(captions)]]
        scored = [
            Scored(_graph(result["ref_tuples"]), _graph(result["test_tuples"]), result["scores"]["All"]["f"] or 0.0)
            for result in results[len(captions) :]
        ]  # null, a NaN, is 0: neither side has a tuple
        return graphs, scored

    def _tokens(self, texts: Sequence[str]) -> list[str]:
        """Captions as coco-caption has them before any measure: PTB tokens in lower case, without punctuation."""
        lines = "".join(" ".join(text.split()) + "\n" for text in texts)
        command = ["-cp", str(self._tokenizer), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        tokens = self._run(command, "the tokenizer", lines).split("\n")[:-1]
        if len(tokens) != len(texts):
            raise UserError(f"{self._tokenizer}: {len(tokens):,} lines came back for {len(texts):,} captions")
        return [" ".join(token for token in line.split() if token not in _MARKS) for line in tokens]

    def _parsed(self, items: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
        """SPICE's results of some items, from ``path`` if it exists."""
        if not path.is_file():
            given, part = path.with_suffix(".input"), path.with_suffix(".part")
            given.write_text(json.dumps([{"image_id": number} | item for number, item in enumerate(items)]))
            command = [_MEMORY, "-jar", str(self._jar), str(given), "-out", str(part), "-detailed", "-silent"]
            self._run(command, "SPICE")
            if not part.is_file():
                raise UserError(f"{self._jar}: ended without results")
            given.unlink()
            part.replace(path)
        results = read_json(path, list, nan=True)
        ids = [result.get("image_id") if isinstance(result, dict) else None for result in results]
        if ids != list(range(len(items))):
            raise UserError(f"{path}: not the results of the {len(items):,} captions and images that SPICE was given")
        return results

    def _run(self, arguments: list[str], name: str, text: str = "") -> str:
        """Standard output of Java."""
        command = [self._java, "-Dfile.encoding=UTF-8", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            lines = done.stderr.splitlines() or ["no reason given"]
            reasons = [line for line in lines if re.search(r"Exception|\wError", line)][:1] or lines[:2]
            raise UserError(f"{name} ended with code {done.returncode}: {' '.join(reasons)[:300]}")
        return done.stdout


def _java_version(java: str) -> int:
    """8 of "1.8.0_412", 11 of "11.0.23"; 0 if unknown."""
    output = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else 0


def _graph(tuples: list[dict[str, Any]]) -> Graph:
    return [tuple(item["tuple"]) for item in tuples]
