"""How long a visitor of ``crossmodal serve`` waits: from the Enter key to the cards on the screen of a real browser.

    python benchmarks/page_latency.py                   # the gallery in results/evaluation
    python benchmarks/page_latency.py --images 30000    # made up, as in benchmarks/search_latency.py

Run it at the root of the repository after ``dvc repro``, with playwright and an installed Chromium or Chrome. The page
stays open; 50 different test captions are typed into it and searched for, one after the other, each when everything of
the former is there. Printed are p50 and p95 of three times since the key: until the results are painted; until the
pictures that are not far below the screen are loaded; until words and regions can be pointed at. Made-up images have
neither pictures nor regions. Then the server's own milliseconds (encode, search and re-rank together), and the load of
the machine before it began.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys

import numpy as np
from playwright.sync_api import Page, sync_playwright
from serve_load import percentiles, served, test_sentences

from crossmodal.serving.session import Folders

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUERIES, WARM = 50, 5
TIMEOUT = 30_000  # milliseconds of one search
# A frame that was asked for after the change is painted when a task that it posts runs.
WATCH = f"""() => {{
    const columns = document.getElementById("columns"), taken = {{}};
    let started = null;
    addEventListener("keydown", (event) => (started = event.timeStamp), {{ capture: true, once: true }});
    const since = () => performance.now() - started;
    const change = (element, options, wanted) => new Promise((done) => new MutationObserver((_, observer) => {{
        if (!wanted()) return;
        observer.disconnect();
        done();
    }}).observe(element, options));
    const found = change(columns, {{ childList: true }}, () => columns.querySelector(".card"));
    const painted = found.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))))
        .then(() => (taken.results = since()));
    const pictures = found.then(() => Promise.all([...columns.querySelectorAll("img:not([loading=lazy])")].map(
        (image) => image.complete || new Promise((done) => (image.onload = image.onerror = done)))))
        .then(() => (taken.pictures = since()));
    const words = found.then(() => "work" in document.body.dataset && change(
        document.body, {{ attributes: true }}, () => !("work" in document.body.dataset)))
        .then(() => (taken.words = since()));
    const late = new Promise((done) => setTimeout(done, {TIMEOUT}));
    window.watched = Promise.race([Promise.all([painted, pictures, words]), late]).then(() => taken);
}}"""


def search(page: Page, sentence: str) -> tuple[dict[str, float], float]:
    """Milliseconds of a search by what they end with, and the server's own."""
    page.fill("#q", sentence)
    page.evaluate(WATCH)
    with page.expect_response(lambda response: "/api/search" in response.url, timeout=TIMEOUT) as answer:
        page.press("#q", "Enter")
    taken = page.evaluate("window.watched")
    if set(taken) != {"results", "pictures", "words"}:
        sys.exit(f"{sentence}: not all there after {TIMEOUT / 1000:g} s")
    return taken, sum(answer.value.json()["milliseconds"].values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=0, help="made-up ones; 0: the gallery in results/evaluation")
    arguments = parser.parse_args()
    folders, load = Folders(), os.getloadavg()[0]
    sentences = random.Random(0).sample(sorted(set(test_sentences(folders))), WARM + QUERIES)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser on PATH; expected one of {', '.join(BROWSERS)}")
    with served(arguments.images, folders) as server, sync_playwright() as engine:
        # No sandbox: containers have none, and nothing but the page of this program is opened.
        chromium = engine.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(TIMEOUT)
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("body:not([data-work])")
        measured = [search(page, sentence) for sentence in sentences][WARM:]
        chromium.close()
    for name in ("results", "pictures", "words"):
        print(f"{name}: {percentiles(np.array([taken[name] for taken, _ in measured]) / 1000)}")
    print(f"the server: {percentiles(np.array([own for _, own in measured]) / 1000)}")
    print(f"{QUERIES} sentences, {os.cpu_count()} processors, load {load:.1f}")


if __name__ == "__main__":
    main()
