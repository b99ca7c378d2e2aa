"""The README's picture of the page of ``crossmodal serve``, made from the pipeline's outs.

python docs/make_pictures.py                                 # after make repro; writes docs/pictures/page.png
python docs/make_pictures.py --sentence "a large purple heart" --word heart --scheme dark

Needs playwright and an installed Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from crossmodal import paths
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.serving.api import Server, make_app
from crossmodal.serving.guard import LOCAL
from crossmodal.serving.listen import listen
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.params import load_params

PICTURES = Path(__file__).parent / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 1200, 760


@contextmanager
def served(gallery: Path) -> Iterator[str]:
    """The address of a server over a gallery, until the end of the block."""
    session = SearchSession(gallery, load_params(), Folders())
    session.warm()
    with listen("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(make_app(Server([session]), LOCAL), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def photograph(address: str, sentence: str, word: str, scheme: str) -> Image.Image:
    """The page with the results of a sentence and the regions that answer one of its words lit up."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"no browser on PATH; expected one of {', '.join(BROWSERS)}")
    with sync_playwright() as engine:
        # No sandbox: containers have none, and nothing but the page of this program is opened.
        chromium = engine.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
        page.goto(f"{address}/?q={quote(sentence)}")
        page.locator(".word", has_text=word).first.click()
        page.wait_for_selector("body:not([data-work]) .answer", state="attached")
        page.wait_for_load_state("networkidle")
        page.evaluate("document.activeElement.blur()")
        picture = Image.open(io.BytesIO(page.screenshot()))
        chromium.close()
    return picture.convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    """As a PNG of 256 colours; the folder is made if missing.

    Half of the colours are frequent ones, so that greys stay smooth, half are far apart, so that rare ones stay bright.
    """
    half = Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE
    colours = [value for method in half for value in picture.quantize(128, method).getpalette()[: 3 * 128]]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=Path, default=paths.EVALUATION)
    parser.add_argument("--sentence", default="a green triangle to the left of a black ring")
    parser.add_argument("--word", default="triangle", help="of the sentence; the regions that answer it are lit up")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=PICTURES / "page.png")
    arguments = parser.parse_args()
    with served(arguments.gallery) as address:
        picture = photograph(address, arguments.sentence, arguments.word, arguments.scheme)
    save(picture, arguments.out)
    print(f"make_pictures: {arguments.out}, {arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
