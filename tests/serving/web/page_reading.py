"""What a test reads of the page of ``crossmodal serve``, and what the server says of the same."""

import json
import re
import time
import urllib.parse
import urllib.request

import pytest

SENTENCE = "a red picture, nothing but lime"
PATH = f"/?q={urllib.parse.quote(SENTENCE)}"


def settled(page):
    """Wait until nothing is on its way, the explanation included."""
    page.wait_for_selector("body:not([data-work])")


def eventually(read, wanted):
    """Wait until what is read of a page is as wanted. The page's policy forbids ``wait_for_function``."""
    for _ in range(400):
        if read() == wanted:
            break
        time.sleep(0.05)
    assert read() == wanted


def ask(server, path, body=None, kind="application/json"):
    request = urllib.request.Request(server + path, data=body, headers={"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def api_search(server, q, **values):
    return ask(server, "/api/search?" + urllib.parse.urlencode({"q": q, "k": 12, **values}))


def api_words(server, q, items, matcher=0):
    return ask(server, "/api/words", json.dumps({"q": q, "items": items, "matcher": matcher}).encode())


def cards(page, column=0):
    """Rank, score and file name of each card."""
    script = """(column) => [...document.querySelectorAll(".column")[column].querySelectorAll(".card")].map((card) => [
        Number(card.querySelector(".facts b").lastChild.textContent),
        Number(card.querySelector("[title=score]").textContent.replace("−", "-")),
        card.querySelector(".file a").textContent])"""
    return [tuple(card) for card in page.evaluate(script, column)]


def expected(answer):
    return [(found["rank"], pytest.approx(found["score"], abs=6e-4), found["file"]) for found in answer["results"]]


def search(page, sentence):
    page.fill("#q", sentence)
    page.press("#q", "Enter")
    settled(page)


def lit(page):
    """What is lit up on each picture: boxes as [x, y, width, height] and how much they show through."""
    script = """() => [...document.querySelectorAll(".picture")].map((picture) => {
        const holes = [...picture.querySelectorAll(".answer mask rect")].slice(1);
        const names = ["x", "y", "width", "height"];
        const value = (hole, name) => Number(hole.getAttribute(name));
        return holes.map((hole) => [names.map((name) => value(hole, name)), value(hole, "fill-opacity")]);
    })"""
    return page.evaluate(script)


def answering(item, regions, word):
    """What the page is to light up of a picture: at most four regions that answer a word with at least 0.2."""
    strong = sorted(enumerate(item["strength"][word]), key=lambda pair: -pair[1])[:4]
    boxes = [(regions[region]["box"], strength) for region, strength in strong if strength >= 0.2]
    return [
        [pytest.approx([x1, y1, x2 - x1, y2 - y1]), pytest.approx(0.25 + 0.75 * strength)]
        for (x1, y1, x2, y2), strength in boxes
    ]


def numbers(colour):
    """Red, green, blue from 0 to 1 of a computed colour."""
    values = [float(value) for value in re.findall(r"[\d.]+", colour.removeprefix("color(srgb"))][:3]
    return [value / 255 for value in values] if colour.startswith("rgb") else values


def contrast(one, other):
    """Contrast ratio of WCAG 2."""

    def luminance(colour):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
