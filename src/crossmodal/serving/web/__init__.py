"""The page of ``crossmodal serve``: HTML, scripts and styles as they are sent, without a build step."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@cache
def page_html() -> str:
    """The page; its script reads what is searched from the address."""
    return _read("serving/web/page.html")


def static_file(name: str) -> tuple[bytes, str] | None:
    """A script, style or picture of the page, by its name alone: content and media type; None of any other name.

    ``style.css`` begins with the look that the report's pages have too.
    """
    return _static_files().get(name)


@cache  # of all files: by names, which clients choose, it would grow without end
def _static_files() -> dict[str, tuple[bytes, str]]:
    found = {}
    for entry in files("crossmodal").joinpath("serving/web").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in MEDIA_TYPES:
            text = entry.read_text("utf-8")
            if entry.name == "style.css":
                text = _read("reports/templates/look.css") + text
            found[entry.name] = (text.encode(), f"{MEDIA_TYPES[suffix]}; charset=utf-8")
    return found


def _read(name: str) -> str:
    return files("crossmodal").joinpath(name).read_text("utf-8")
