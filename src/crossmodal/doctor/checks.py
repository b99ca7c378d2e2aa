"""Checks of ``crossmodal doctor``: the machine, and the files and weights that the settings name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from crossmodal import paths
from crossmodal.datasets.archives.addresses import find_tars, label, names_tars
from crossmodal.datasets.archives.obtain import Archive, sources
from crossmodal.datasets.archives.transfer import explain
from crossmodal.datasets.build import archives_of, download_cache
from crossmodal.datasets.records import read_dataset
from crossmodal.doctor.findings import Finding, never_raises
from crossmodal.errors import UserError
from crossmodal.runtime import in_units, project_root, setting_path
from crossmodal.settings.derived import BACKENDS, bert_source, region_backend, settings_in_use
from crossmodal.settings.params import Params

_ALSO_READ = ("download.mirror", "download.max_bad")  # params of the download stage besides the dataset's section


@never_raises
def check_machine(params: Params) -> list[Finding]:
    """Processor, GPU, detectron2 and free disk space."""
    import torch

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    names = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
    root = project_root()
    return [
        Finding("", "GPU", names or f"none that torch {torch.__version__} can use; {os.cpu_count()} CPU cores"),
        _detectron2(params),
        Finding("", "disk", f"{in_units(shutil.disk_usage(root).free)} free in {root}"),
    ]


def _detectron2(params: Params) -> Finding:
    backend = region_backend(params)
    if importlib.util.find_spec("detectron2"):
        return Finding("ok", "detectron2", f"{importlib.metadata.version('detectron2')} installed")
    if backend == "detectron2":
        return Finding(
            "fix",
            "detectron2",
            "not installed",
            "install detectron2, see docs/bottom-up-features.md, or another backend",
        )
    return Finding("", "detectron2", f"not installed; regions.backend {backend} does not need it")


@never_raises
def check_dataset(params: Params, timeout: float) -> list[Finding]:
    """Files of the chosen dataset: here, partly downloaded, or available; and whether they fit on the disk."""
    if params.dataset == "folder":
        if params.folder.images and names_tars(params.folder.images):
            return [_tars(params.folder.images)]
        return [_path(f"folder.{key}", getattr(params.folder, key)) for key in ("images", "captions")]
    try:
        if read_dataset(paths.DATASET).name == params.dataset and _is_made(params):
            return [Finding("ok", "data/dataset", f"{params.dataset} is made; its files are not needed again")]
    except UserError:
        pass  # not made yet
    groups = archives_of(params.dataset)
    if not groups:
        return [Finding("ok", params.dataset, "made by the pipeline, nothing is downloaded")]
    findings = [_archive(forms, params, timeout) for forms in groups]
    return [*findings, _space(groups, params)]


def _path(key: str, value: str | None) -> Finding:
    if value is None:
        return Finding("fix", key, "null", f"set {key} in params.yaml, or add -S {key}=PATH")
    path = setting_path(value)
    return Finding("ok", key, str(path)) if path.exists() else Finding("fix", key, f"{path}: not there", f"fix {key}")


def _tars(pattern: str) -> Finding:
    try:
        return Finding("ok", "folder.images", f"{len(find_tars(pattern, setting_path)):,} tars, {label(pattern)}")
    except UserError as error:
        return Finding("fix", "folder.images", str(error), "fix folder.images")


def _find(forms: tuple[Archive, ...], params: Params) -> tuple[Path | None, list[str]]:
    """The file on this machine, and the addresses to download it from."""
    found = sources(forms, download_cache(), params.download.mirror, params.download.offline)
    files = (source.folder / source.archive.name for source in found)
    return next(filter(Path.is_file, files), None), [source.url for source in found if source.url]


def _begun(archive: Archive) -> int:
    """Bytes of an interrupted download."""
    parts = (path for path in download_cache().glob(f"**/{archive.name}.part-*") if path.suffix != ".json")
    return max((path.stat().st_size for path in parts), default=0)


def _archive(forms: tuple[Archive, ...], params: Params, timeout: float) -> Finding:
    first, (path, urls) = forms[0], _find(forms, params)
    if path:
        return Finding("ok", path.name, f"{in_units(path.stat().st_size)} in {path.parent}")
    size = f"about {in_units(first.size)}" if first.size else "size unknown"
    put = "put it into a folder and set download.mirror to that folder"
    if params.download.offline:
        return Finding("fix", first.name, f"{size}, not here, and download.offline", first.terms or put)
    if not urls:
        return Finding("fix", first.name, f"{size}, not here; given out on request", f"{first.terms} Then {put}.")
    tried = []
    for url in urls:
        reason = answer(url, timeout)
        if reason is None:
            begun = _begun(first)
            state, done = ("part", f"{in_units(begun)} of ") if begun else ("get", "")
            return Finding(state, first.name, f"{done}{size}, from {url}")
        tried.append(f"{urlsplit(url).netloc}: {reason}")
    elsewhere = f"get it from {' or '.join(urls)} on another machine, {put}"
    return Finding("fix", first.name, f"{size}, no address answers ({'; '.join(tried)})", elsewhere)


def answer(url: str, timeout: float) -> str | None:
    """None if an address answers a request for its headers, else the reason why not."""
    try:
        with requests.head(url, timeout=timeout, allow_redirects=True) as response:
            return None if response.status_code < 400 else f"HTTP {response.status_code}"
    except requests.RequestException as error:
        return explain(error)


def _space(groups: tuple[tuple[Archive, ...], ...], params: Params) -> Finding:
    files = [(forms[0], _find(forms, params)[0]) for forms in groups]
    missing = sum(max(0, first.size - _begun(first)) for first, path in files if not path)
    # Archives of photographs are not compressed.
    unpacked = sum(path.stat().st_size if path else first.size for first, path in files[1:])
    free = shutil.disk_usage(project_root()).free
    text = f"{in_units(missing)} to download and {in_units(unpacked)} to unpack, {in_units(free)} free (computed)"
    if missing + unpacked > free:
        return Finding("fix", "space", text, f"free {in_units(missing + unpacked - free)} or more")
    return Finding("ok", "space", text)


@never_raises
def check_files(params: Params, timeout: float) -> list[Finding]:
    """Files of the user's that the settings name, of stages that have not run: weights, features, captions, words."""
    named = {}
    if not _has_run(paths.DETECTOR, params):
        section = BACKENDS[region_backend(params)].section
        weights = getattr(getattr(params, section), "weights", "hub")
        if weights != "hub":
            named[f"{section}.weights"] = weights
    if region_backend(params) == "precomputed" and not _has_run(paths.REGIONS, params):
        named["precomputed.path"] = params.precomputed.path
    if bert_source(params) == "fit" and params.bert.captions is not None and not _has_run(paths.BERT, params):
        named["bert.captions"] = params.bert.captions
    if params.captions.encoder == "bigru" and params.captions.vocabulary != "count":
        named["captions.vocabulary"] = params.captions.vocabulary
    return [
        _address(key, name, params, timeout) if urlsplit(name).scheme in ("http", "https") else _path(key, name)
        for key, name in named.items()
    ]


def _address(key: str, url: str, params: Params, timeout: float) -> Finding:
    if found := next(download_cache().glob(f"*-{Path(urlsplit(url).path).name}"), None):
        return Finding("ok", key, f"{in_units(found.stat().st_size)} in {found.parent}")
    if params.download.offline:
        return Finding("?", key, f"{url}, not checked (download.offline)")
    reason = answer(url, timeout)
    if reason is None:
        return Finding("get", key, f"from {url}")
    return Finding("fix", key, f"{url}: {reason}", f"set {key} to a file on disk")


@never_raises
def check_hub(params: Params, timeout: float) -> list[Finding]:
    """The published weights in the settings: on this machine, or available from the hub."""
    from huggingface_hub import constants, try_to_load_from_cache

    hub, names = constants.ENDPOINT, _from_hub(params)
    cached = {key for key, name in names.items() if isinstance(try_to_load_from_cache(name, "config.json"), str)}
    reason = answer(hub, timeout) if names.keys() - cached else None
    findings = []
    for key, name in names.items():
        if key in cached:
            findings.append(Finding("ok", key, f"{name} is in the cache of this machine"))
        elif reason is None:
            findings.append(Finding("get", key, f"{name}, from {hub}"))
        else:
            text = f"{name} is not in the cache of this machine; {hub}: {reason}"
            findings.append(Finding("fix", key, text, f"set {key} to a file or folder on disk"))
    return findings or [Finding("ok", "weights", "none from a hub")]


def _from_hub(params: Params) -> dict[str, str]:
    """Hub names by their setting, of stages that have not run."""
    names = {}
    if region_backend(params) == "grid" and params.grid.weights == "hub" and not _has_run(paths.DETECTOR, params):
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(params.grid.model)
        names["grid.weights"] = (config and config.hf_hub_id) or params.grid.model
    if not _has_run(paths.BERT, params):
        source = bert_source(params)
        if source == "clip":
            names["clip.source"] = params.clip.source
        elif source != "fit":
            names["bert.source"] = source
    return {key: name for key, name in names.items() if not setting_path(name).is_dir()}


def _has_run(out: Path, params: Params) -> bool:
    """Whether a stage's out, a folder of its name, is here and made with these settings, by dvc.lock."""
    import yaml

    file = (paths.SETTINGS / f"{out.name}.json").as_posix()
    text = f"{json.dumps(settings_in_use(params)[out.name], indent=1)}\n"  # as the settings stage writes it
    wanted = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    try:
        locked = {dependency["path"]: dependency["md5"] for dependency in _locked(out.name)["deps"]}
    except (OSError, yaml.YAMLError, LookupError, TypeError):
        return False
    return out.exists() and locked.get(file) == wanted


def _is_made(params: Params) -> bool:
    """Whether the dataset was made with these settings, by dvc.lock: else the download stage runs, and needs its files.

    Compared as settings, not as they are written.
    """
    import yaml

    section = getattr(params, params.dataset)
    try:
        locked = _locked("download")["params"]["params.yaml"]
        made = type(section).model_validate(locked[params.dataset])
        others = {key: getattr(params.download, key.removeprefix("download.")) for key in _ALSO_READ}
        return made == section and others == {key: locked[key] for key in _ALSO_READ}
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return False


def _locked(stage: str) -> dict[str, Any]:
    """What dvc.lock says of a stage."""
    import yaml

    return yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"][stage]
