"""The page of ``crossmodal serve`` for every visitor: keyboard, narrow, dark, odd sentences, errors."""

import re
import urllib.parse

import pytest
from page_reading import PATH, SENTENCE, api_search, cards, contrast, expected, numbers, search, settled
from page_server import embed, serving
from PIL import Image
from tiny_pipeline import COLOURS

ODD = "<script>alert(1)</script> \"a\" 'red' 😀 picture & שלום 100% a+b #"
SEEN = """() => { // the name of what has the focus, and whether that shows
    const element = document.activeElement, style = getComputedStyle(element), box = element.closest(".box");
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    return [element.id || element.classList[0], ring || Boolean(box && getComputedStyle(box).boxShadow !== "none")];
}"""
TEXTS = """h1 a, #about, #q, .box button, .options button, .word, #explains, #status, .facts *, .caption,
    .names li, .file a, h2 small"""
COLOURED = """(texts) => [...document.querySelectorAll(texts)].filter((text) => text.checkVisibility()).map((text) => {
    let behind = text;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [getComputedStyle(text).color, getComputedStyle(behind).backgroundColor, text.className || text.id];
})"""


def test_with_the_keyboard_alone(open_page):
    page = open_page()
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    settled(page)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen = page.evaluate(SEEN)
        reached.append(seen[0])
        assert seen[1], f"{seen[0]} shows no focus"
        if seen[0] == "similar":
            break
    order = ["choose", "k", "boxes", "against", "word", "picture", "similar"]
    assert [name for name in reached if name in order] == order
    page.keyboard.press("Enter")
    page.wait_for_url("**/?item=*")
    settled(page)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


@pytest.mark.parametrize(
    "path", ["/", f"/?q={urllib.parse.quote(ODD)}&boxes=1", "/?q=a+red+picture&against=1", "/?q=" + "a" * 300]
)
def test_390_pixels_wide(open_page, path):
    page = open_page(path, width=390, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if "q=" in path:
        right = page.locator(".card").evaluate_all(
            "(all) => Math.max(...all.map((card) => card.getBoundingClientRect().right))"
        )
        assert right <= 390
        small = page.locator("button:visible").evaluate_all(
            "(all) => all.filter((button) => button.getBoundingClientRect().height < 24).length"
        )
        assert small == 0
        page.locator(".word").first.tap()
        assert page.locator(".word").first.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible_in_light_and_dark(open_page, scheme):
    page = open_page(PATH + "&boxes=1&against=1", color_scheme=scheme)
    colours = page.evaluate(COLOURED, TEXTS)
    assert len(colours) > 40
    for colour, background, name in {tuple(entry) for entry in colours}:
        assert contrast(numbers(colour), numbers(background)) >= 4.5, name
    dark = sum(numbers(page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]) < 1.5
    assert dark == (scheme == "dark")


def test_odd_sentences_are_text(open_page, server):
    page = open_page()
    search(page, ODD)
    assert cards(page) == expected(api_search(server, ODD))
    assert page.locator("script").count() == 1
    words = api_search(server, ODD)["query"]["words"]
    assert page.locator(".word").all_inner_texts() == [word["text"] for word in words]
    assert re.sub(r"\s", "", page.text_content("#words")) == re.sub(r"\s", "", ODD)
    page.reload()
    settled(page)
    assert page.input_value("#q") == ODD
    search(page, "a red picture " * 40)
    assert len(cards(page)) == len(COLOURS)
    assert page.locator("#bar").bounding_box()["height"] < 150


def test_errors_are_one_line(open_page):
    page = open_page("/?q=red&k=5000")
    assert page.locator(".card").count() == 0
    line = page.inner_text("#error span")
    assert "5000" in line and "\n" not in line
    page = open_page("/?item=99")
    assert "0 to 7" in page.inner_text("#error span")
    page = open_page("/?item=%3Cb%3E")
    assert "item" in page.inner_text("#error span")


def test_a_server_that_goes_away_and_comes_back(open_page, server):
    page = open_page()
    page.route("**/api/**", lambda route: route.abort())
    page.fill("#q", SENTENCE)
    page.press("#q", "Enter")
    page.wait_for_selector("#again:visible")
    assert page.inner_text("#error span") == "The server does not answer. Is crossmodal serve still running?"
    page.unroute("**/api/**")
    page.click("#again")
    page.wait_for_selector(".card")
    assert cards(page) == expected(api_search(server, SENTENCE))
    assert not page.locator("#error").is_visible()


def test_a_line_where_nothing_fits_any_more(open_page, server):
    page = open_page()
    answer = api_search(server, SENTENCE)
    for above in (3, 0, len(COLOURS)):
        for found in answer["results"]:
            found["above_threshold"] = found["rank"] <= above
        answer["threshold"] = 0.25
        page.unroute("**/api/search*")
        page.route("**/api/search*", lambda route: route.fulfill(json=answer))
        page.goto(f"{server}/?{urllib.parse.urlencode({'q': f'{SENTENCE} {above}'})}")
        settled(page)
        ranks = page.locator("ol.cards").evaluate_all("(all) => all.map((list) => list.children.length)")
        assert ranks == [count for count in (above, len(COLOURS) - above) if count]
        lines = page.locator(".line").all_inner_texts()
        assert lines == (
            [] if above == len(COLOURS) else [f"Nothing here fits well{' below this line' if above else ''}"]
        )


def test_one_photograph_without_captions(open_page, project, tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (400, 20), "red").save(tmp_path / "photographs/wide <b>.png")
    with serving(embed(project, tmp_path / "photographs", tmp_path / "gallery")) as address:
        page = open_page("/?q=red&boxes=1", address=address)
        assert [file for _, _, file in cards(page)] == ["wide <b>.png"]
        assert page.locator(".caption").count() == page.locator(".facts .faint").count() == 0
        assert page.inner_text("#status").startswith("1 picture, ")
        page.set_input_files("#file", project / "data/dataset/images/red.png")
        page.wait_for_selector("#asked:visible")
        settled(page)
        assert page.locator("#find").is_hidden() and len(cards(page)) == 1
