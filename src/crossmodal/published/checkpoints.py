"""Published checkpoints as matchers of this project; files.py reads them, projects.py knows each project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.checkpoint import MatcherConfig, build_checked
from crossmodal.published.files import PublishedFile, read_published_file, read_vocabulary
from crossmodal.published.projects import PROJECTS, Part, Text


@dataclass(frozen=True)
class Imported:
    """A matcher in evaluation mode, what ``save_matcher`` takes, and its words by id (None with BERT)."""

    model: Matcher
    config: MatcherConfig
    words: list[str] | None


def import_checkpoint(project: str, paths: Sequence[Path], vocabulary: Path | None, key: str) -> Imported:
    """Read a published checkpoint, or SGRAF's two, whose scores are averaged.

    Args:
        project: one of PROJECTS.
        paths: what the project's train.py saved; an SGR and a SAF make an SGRAF.
        vocabulary: the project's vocabulary, JSON or pickle, where its words are embedded by a BiGRU.
        key: for MatcherConfig.

    Raises:
        UserError: a file is missing, unreadable, unsafe, or not of this project; a variant that has no
            counterpart here; the vocabulary does not belong to the checkpoint; two files that are no pair.
    """
    files = [read_published_file(path) for path in paths]
    parts = [PROJECTS[project](published) for published in files]
    part = parts[0] if len(parts) == 1 else _pair(project, files, parts)
    text, words = part.text, _words(files[0], part.text, vocabulary, project)
    sizes = InputSizes(regions=_region_size(files[0]), words=text.size)
    config = MatcherConfig(part.model, part.settings, sizes, key, text.encoder, text.settings)
    weights = part.state | {f"text.{entry}": value for entry, value in text.state.items()}
    model = build_checked(config, weights, paths[0], paths[0])
    model.load_state_dict(weights, strict=False)
    return Imported(model.eval(), config, words)


def _pair(project: str, files: list[PublishedFile], parts: list[Part]) -> Part:
    """SGRAF of an SGR and a SAF that differ in nothing else."""
    parts = sorted(parts, key=lambda part: part.settings.get("module") != "sgr")
    if project != "sgraf" or [part.settings["module"] for part in parts] != ["sgr", "saf"]:
        raise UserError(f"{files[1].path}: two files make a model only where one is SGRAF's SGR and the other its SAF")
    sgr, saf = parts
    ignored = {"module", "sgr_steps"}
    unlike = [k for k in sgr.settings.keys() - ignored if sgr.settings[k] != saf.settings[k]]
    if unlike or sgr.text != saf.text or _region_size(files[0]) != _region_size(files[1]):
        raise UserError(f"{files[1].path}: differs from {files[0].path} in {min(unlike, default='its inputs')}")
    state = {f"matchers.{number}.{k}": v for number, part in enumerate(parts) for k, v in part.state.items()}
    return replace(sgr, settings=sgr.settings | {"module": "sgraf"}, state=state)


def _region_size(published: PublishedFile) -> int:
    """Size of a region's features: inputs of the first map, without the five values of its position."""
    positions = {"img_enc.fc.weight": 0, "img_enc.fc_local.weight": 0}
    for name, position in (positions | {"img_txt_enc.img_enc.pos_encoding_image.map.0.weight": 5}).items():
        if name in published.entries:
            return published.size(name, 1) - position
    raise UserError(f"{published.path}: has no map of region features; is it a checkpoint of the project named?")


def _words(published: PublishedFile, text: Text, vocabulary: Path | None, project: str) -> list[str] | None:
    """The words of a BiGRU's vocabulary by id."""
    if text.encoder != "bigru":
        if vocabulary:
            raise UserError(f"{vocabulary}: not needed, {published.path} reads captions with BERT, not a vocabulary")
        return None
    if vocabulary is None:
        raise UserError(f"{published.path}: embeds words of its own: give the project's vocabulary by --vocabulary")
    words, rows = read_vocabulary(vocabulary), text.settings["vocabulary"]
    if project in ("vse_infty", "esa", "chan") and len(words) == rows - 1:
        words.append("<mask>")  # its train.py adds one to the vocabulary file's
    if len(words) != rows:
        raise UserError(f"{vocabulary}: has {len(words)} words, {published.path} embeds {rows}")
    return words
