"""The published detector's weights and names, from a file or an address, into a detector folder."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crossmodal.datasets.archives.transfer import TransferError, discard, fetch
from crossmodal.errors import UserError
from crossmodal.regions.bottomup.folder import DetectorFolder, write_folder
from crossmodal.regions.bottomup.published import read_published
from crossmodal.runtime import setting_path
from crossmodal.settings.params import Bottomup

log = logging.getLogger(__name__)

_MOST = 16 * 2**30  # bytes of a download; the published files have 0.3
_NAMES = {"classes": "objects_vocab.txt", "attributes": "attributes_vocab.txt"}  # of 1600-400-20, a name a line


def obtain_detector(settings: Bottomup, folder: Path, cache: Path) -> None:
    """Write weights, sizes and names of the published detector to ``folder``.

    Args:
        settings: ``weights``, a file or an address; ``sha256`` of it, or None; ``names``, a folder, or None for the
            folder of the weights.
        folder: exists.
        cache: where a download is kept, under a name that is its address's alone.

    Raises:
        UserError: no way to the address; another checksum; not such weights (see ``read_published``); a list of
            names that is missing or of another length.
    """
    address = urlsplit(settings.weights).scheme in ("http", "https")
    path = _download(settings, cache) if address else setting_path(settings.weights)
    if not path.is_file():
        raise UserError(f"bottomup.weights {path}: not found; docs/bottom-up-features.md says where it can be had")
    sha256 = _sha256(path)
    if settings.sha256 not in (None, sha256):
        raise UserError(f"bottomup.weights {path}: sha256 is {sha256}, expected bottomup.sha256 {settings.sha256}")
    architecture, weights = read_published(path)
    name = _name(settings.weights) if address else path.name
    counts = {"classes": architecture.classes, "attributes": architecture.attributes}
    names = _read_names(settings.names, path.parent, counts)
    write_folder(folder, DetectorFolder(architecture, weights, **names), {"name": name, "sha256": sha256})


def _download(settings: Bottomup, cache: Path) -> Path:
    """The file behind an address, from ``cache`` if it was had before; a download appears there whole or not at all."""
    url = settings.weights
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{_name(url)}"
    part = path.with_name(f"{path.name}.part")
    if path.is_file():
        return path
    try:
        fetch(url, part, most=_MOST)
        if settings.sha256 in (None, _sha256(part)):
            return part.replace(path)
        discard(part)
        reason = f"its sha256 is not bottomup.sha256 {settings.sha256}"
    except TransferError as error:
        reason = str(error).removeprefix(f"{url}: ")
    except OSError as error:
        reason = f"{error.filename or cache}: {error.strerror or error}"
    raise UserError(
        f"bottomup.weights {url}: not obtained ({reason}).\nGet the file by other means "
        "(docs/bottom-up-features.md) and set bottomup.weights in params.yaml to its path."
    )


def _name(url: str) -> str:
    """The file's name in an address."""
    return Path(unquote(urlsplit(url).path)).name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_names(folder: str | None, beside: Path, counts: dict[str, int]) -> dict[str, list[str]]:
    """Names of classes and attributes, the first of several on a line ("gray,grey"); none where no folder is given."""
    names = {}
    for kind, count in counts.items():
        path = (beside if folder is None else setting_path(folder)) / _NAMES[kind]
        if not count or (folder is None and not path.is_file()):
            names[kind] = []
            if count:
                log.warning("note: no %s beside the weights, bottomup.names is null: %s stay numbers", path.name, kind)
            continue
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"bottomup.names {path}: not readable ({error})") from None
        names[kind] = [line.split(",")[0].strip().lower() for line in lines if line.strip()]
        if len(names[kind]) != count:
            raise UserError(f"{path}: {len(names[kind])} names, but the detector has {count} {kind}")
    return names
