"""The page of ``crossmodal serve``: HTML, scripts and styles as they are sent, without a build step."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@cache
def page_html() -> str:
    """The page; its script reads what is searched from the address."""
    return _read("serving/web/page.html")


@cache
def static_file(name: str) -> tuple[bytes, str] | None:
    """A script, style or picture of the page, by its name alone: content and media type; None of any other name.

    ``style.css`` begins with the look that the report's pages have too.
    """
    known = {entry.name: entry for entry in files("crossmodal").joinpath("serving/web").iterdir()}
    suffix = name[name.rfind(".") :]
    if name not in known or suffix not in MEDIA_TYPES:
        return None
    text = known[name].read_text("utf-8")
    if name == "style.css":
        text = _read("reports/templates/look.css") + text
    return text.encode(), f"{MEDIA_TYPES[suffix]}; charset=utf-8"


def _read(name: str) -> str:
    return files("crossmodal").joinpath(name).read_text("utf-8")
