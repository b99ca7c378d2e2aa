"""The published detector's weights and names, from a file or an address, into a detector folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crossmodal.datasets.archives.transfer import TransferError, discard, fetch
from crossmodal.errors import UserError
from crossmodal.files.checksums import file_checksum
from crossmodal.files.text_files import read_text, split_lines
from crossmodal.regions.bottomup.folder import DetectorFolder, write_folder
from crossmodal.regions.bottomup.published import read_published
from crossmodal.runtime import setting_path
from crossmodal.settings.features import Bottomup
from crossmodal.terminal import warn

_MOST = 16 * 2**30  # bytes of a download; the published files have 0.3
_NAMES = {"classes": "objects_vocab.txt", "attributes": "attributes_vocab.txt"}  # of 1600-400-20, a name a line


def fetch_detector(settings: Bottomup, folder: Path, cache: Path) -> None:
    """Write weights, sizes and names of the published detector to ``folder``.

    Args:
        settings: ``weights``, a file or an address; ``sha256`` of it, or None; ``names``, a folder, or None for the
            folder of the weights.
        folder: exists.
        cache: folder of downloads, under names that are made from their addresses.

    Raises:
        UserError: no way to the address; another checksum; not such weights (see ``read_published``); a list of
            names that is missing or of another length.
    """
    address, path = urlsplit(settings.weights), setting_path(settings.weights)
    if address.scheme in ("http", "https"):
        name = Path(unquote(address.path)).name
        path = cache / f"{hashlib.sha256(settings.weights.encode()).hexdigest()[:16]}-{name}"
        _download(settings, path)
    elif path.is_file():
        name = path.name
    else:
        raise UserError(f"bottomup.weights {path}: not found; docs/bottom-up-features.md says where to get it")
    sha256 = file_checksum(path)
    if settings.sha256 not in (None, sha256):
        raise UserError(f"bottomup.weights {path}: sha256 is {sha256}, expected bottomup.sha256 {settings.sha256}")
    architecture, weights = read_published(path)
    counts = {"classes": architecture.classes, "attributes": architecture.attributes}
    names = _read_names(settings.names, path.parent, counts)
    write_folder(folder, DetectorFolder(architecture, weights, **names), {"name": name, "sha256": sha256})


def _download(settings: Bottomup, path: Path) -> None:
    """Download to ``path``, where the file appears once it is complete; nothing to do if it is there."""
    if path.is_file():
        return
    url, part = settings.weights, path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(url, part, most=_MOST)
        if settings.sha256 in (None, file_checksum(part)):
            part.replace(path)
            return
        discard(part)
        reason = f"its sha256 is not bottomup.sha256 {settings.sha256}"
    except TransferError as error:
        reason = str(error).removeprefix(f"{url}: ")
    except OSError as error:
        reason = f"{error.filename or path}: {error.strerror or error}"
    raise UserError(
        f"bottomup.weights {url}: not obtained ({reason}).\nGet the file by other means "
        "(docs/bottom-up-features.md) and set bottomup.weights in params.yaml to its path."
    )


def _read_names(folder: str | None, default: Path, counts: dict[str, int]) -> dict[str, list[str]]:
    """Names of classes and attributes, the first of several on a line ("gray,grey").

    Without a ``folder`` they may be missing from ``default``.
    """
    names = {}
    for kind, count in counts.items():
        path = (default if folder is None else setting_path(folder)) / _NAMES[kind]
        if not count or (folder is None and not path.is_file()):
            names[kind] = []
            if count:
                warn(f"no {path.name} next to the weights, bottomup.names is null: {kind} stay numbers")
            continue
        lines = split_lines(read_text(path))
        names[kind] = [line.split(",")[0].strip().lower() for line in lines if line.strip()]
        if len(names[kind]) != count:
            raise UserError(f"{path}: {len(names[kind])} names, but the detector has {count} {kind}")
    return names
