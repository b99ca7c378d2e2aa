"""A trained matcher as a folder to share, on the Hugging Face hub or elsewhere, with all that reads its queries.

README.md                     see model_card.md.j2 of sharing
crossmodal.json               settings by which sentences and photographs are read, see Shared
matcher/ bert/ detector/      as the stages wrote them, without what only training reads; matcher/ has the
                              vocabulary.json of a BiGRU too
metrics.json, settings.json   of the test split, and of the training, where they are known

Weights are safetensors alone; there is no pickle and no code in it, and of a folder on the hub nothing else is fetched.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from crossmodal import paths
from crossmodal.captions.encoders import caption_reading
from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.files.hub_models import reading
from crossmodal.models.checkpoint import MatcherConfig, read_config
from crossmodal.retrieval.gallery import as_made
from crossmodal.serving.embedding.record import ONLY_TRAINING, SUFFIXES
from crossmodal.serving.session import Folders, as_stored
from crossmodal.settings.derived import image_reading
from crossmodal.settings.params import Params

FILE = "crossmodal.json"
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


class Shared(Record):
    """Content of crossmodal.json. settings: by dotted key, see ``derived.with_reading``; key: of the matcher."""

    version: Literal[1] = 1
    model: str
    key: str
    dataset: str
    settings: dict[str, Any] = Field(default_factory=dict)


def reading_settings(params: Params, folders: Folders, config: MatcherConfig) -> dict[str, Any]:
    """Settings that sentences and photographs are read by for a matcher: those of its features, else of ``params``."""
    params = as_stored(params, folders)
    return image_reading(params) | caption_reading(_with_encoder(params, config))


def write_shared(out: Path, params: Params, folders: Folders, dataset: str) -> MatcherConfig:
    """Copy a trained matcher and what reads its queries; the card is written by others.

    Args:
        out: an empty folder. dataset: name of what it was trained on; empty where that is not known.

    Raises:
        UserError: the matcher is missing or damaged.
    """
    config = read_config(folders.matcher)
    for name in ("matcher", "bert", "detector"):
        folder = getattr(folders, name)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix in SUFFIXES and path.name not in ONLY_TRAINING:
                (out / name).mkdir(exist_ok=True)
                shutil.copyfile(path, out / name / path.name)
    vocabulary = folders.captions / "vocabulary.json"
    if vocabulary.is_file() and not (out / "matcher/vocabulary.json").exists():
        shutil.copyfile(vocabulary, out / "matcher/vocabulary.json")
    shared = Shared(
        model=config.model, key=config.key, dataset=dataset, settings=reading_settings(params, folders, config)
    )
    write_json(out / FILE, shared.model_dump())
    return config


def open_matcher(source: str | None, params: Params) -> tuple[Params, Folders]:
    """Settings and folders for a search session or ``embed``.

    Args:
        source: None, the pipeline's own matcher; a folder of ``write_shared``; a matcher's folder, which reads with the
            pipeline's own models/bert and models/detector; or a name on the hub, ORG/NAME or ORG/NAME@REVISION, which
            is fetched into its cache.
        params: of this machine; what a shared matcher's queries depend on is taken from its folder.

    Raises:
        UserError: there is no such folder or name, or it holds something else.
    """
    if source is None:
        return params, Folders()
    folder = Path(source).expanduser()
    if not folder.is_dir():
        named = _HUB_NAME.fullmatch(source)
        if named is None:
            raise UserError(f"matcher {source}: no such folder, and no hub's name, ORG/NAME or ORG/NAME@REVISION")
        folder = _fetch(source, named["name"], named["revision"])
    elif not (folder / FILE).exists() and (folder / "config.json").exists():
        return _with_encoder(params, read_config(folder)), replace(Folders(), matcher=folder)
    shared = read_record(folder / FILE, Shared, advice="expected a folder of crossmodal export --format hub")
    config = read_config(folder / "matcher")
    if config.key != shared.key:
        raise UserError(f"{folder / FILE}: key {shared.key!r}, the matcher's is {config.key!r}; copy the folder again")
    own = {name: folder / name for name in ("matcher", "bert", "detector", "regions", "captions")}
    made = as_made(_with_encoder(params, config), shared.settings, folder / FILE)
    return made, Folders(**own, dataset=paths.DATASET)


def _with_encoder(params: Params, config: MatcherConfig) -> Params:
    """Settings with the caption encoder that a matcher was made for."""
    return params.model_copy(update={"captions": params.captions.model_copy(update={"encoder": config.encoder})})


def _fetch(source: str, name: str, revision: str | None) -> Path:
    """The files of a repository on the hub, in the hub's cache on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    with reading(f"matcher {source}", "neither a folder nor available from the hub"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[f"*{suffix}" for suffix in SUFFIXES]))
