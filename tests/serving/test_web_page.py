"""The page of ``crossmodal serve`` in a headless browser: what a visitor sees is what the server answered."""

import itertools
import json
import re
import shutil
import time
import urllib.parse
import urllib.request

import pytest
from PIL import Image
from tiny_pipeline import COLOURS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from page_server import CLASSES, embed, name_regions, open_session, serving  # noqa: E402  needs much of the project

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH: {', '.join(NAMES)}")

SENTENCE = "a red picture, nothing but lime"
ODD = '<script>alert(1)</script> "a" \'red\' 😀 picture & שלום 100% a+b #'


@pytest.fixture(scope="module")
def project(pipeline, tmp_path_factory):
    """The tiny pipeline, its regions named, and the server's address."""
    folder = tmp_path_factory.mktemp("served") / "pipeline"
    shutil.copytree(pipeline, folder)
    name_regions(folder / "data/regions")
    return folder


@pytest.fixture(scope="module")
def server(project):
    with serving(open_session(project, "vsepp"), open_session(project, "scan")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens a path of the server; at the end no script may have failed and no policy been violated."""
    said, contexts = [], []

    def _open(path="/", address=server, expected=(), **options):
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1200, "height": 800}), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda line: said.append(line.text) if line.type == "error" and "Failed to load resource" not in line.text else None,
        )
        page.goto(address + path)
        settled(page)
        return page

    yield _open
    for context in contexts:
        context.close()
    assert not said


def settled(page):
    """Wait until nothing is on its way, the explanation included."""
    page.wait_for_load_state("networkidle")
    page.wait_for_function("!document.body.classList.contains('busy')")


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
    page.wait_for_function("(text) => new URLSearchParams(location.search).get('q') === text", arg=sentence)
    settled(page)


def lit(page):
    """What is lit up on each picture: boxes as [x, y, width, height] and how much they show through."""
    script = """() => [...document.querySelectorAll(".picture")].map((picture) =>
        [...picture.querySelectorAll(".answer mask rect")].slice(1).map((hole) => [
            ["x", "y", "width", "height"].map((name) => Number(hole.getAttribute(name))), Number(hole.getAttribute("fill-opacity"))]))"""
    return page.evaluate(script)


def answering(item, regions, word):
    """What the page is to light up of a picture: at most four regions that answer a word with at least 0.35."""
    strong = sorted(enumerate(item["strength"][word]), key=lambda pair: -pair[1])[:4]
    boxes = [(regions[region]["box"], strength) for region, strength in strong if strength >= 0.35]
    return [[pytest.approx([x1, y1, x2 - x1, y2 - y1]), pytest.approx(strength)] for (x1, y1, x2, y2), strength in boxes]


def test_a_sentence_shows_what_the_server_found(open_page, server):
    page = open_page()
    assert page.locator(".samples img").count() == len(COLOURS)
    search(page, SENTENCE)
    answer = api_search(server, SENTENCE)
    assert cards(page) == expected(answer)
    gaps = page.locator(".facts .faint").all_inner_texts()
    assert [float(gap) for gap in gaps] == [pytest.approx(found["gap"], abs=6e-4) for found in answer["results"][:-1]]
    assert page.locator(".card").first.locator(".captions .caption").all_text_contents() == answer["results"][0]["captions"]
    assert page.locator(".card").first.locator(".names li").all_text_contents() == CLASSES
    assert page.title().startswith(SENTENCE)
    status = page.inner_text("#status")
    assert re.search(r"encode [\d.]+ ms", status) and re.search(r"search [\d.]+ ms", status)
    widths = page.locator(".card img").evaluate_all("(all) => all.map((image) => image.naturalWidth)")
    assert min(widths) > 0


def test_a_link_is_a_search(open_page, server):
    page = open_page(f"/?{urllib.parse.urlencode({'q': SENTENCE, 'k': 3, 'boxes': 1})}")
    assert cards(page) == expected(api_search(server, SENTENCE, k=3))
    assert (page.input_value("#q"), page.input_value("#k")) == (SENTENCE, "3")
    assert page.get_attribute("#boxes", "aria-pressed") == "true"
    assert page.locator(".boxes rect").first.is_visible()
    page.click("#boxes")
    assert not page.locator(".boxes rect").first.is_visible()
    assert "boxes" not in page.url


def test_pointing_at_a_word_lights_the_regions_that_answer_it(open_page, server):
    page = open_page(f"/?q={urllib.parse.quote(SENTENCE)}")
    results = api_search(server, SENTENCE)["results"]
    words = api_words(server, SENTENCE, [found["item"] for found in results])
    chips = page.locator(".word")
    assert chips.all_inner_texts() == [word["text"] for word in words["words"]] == ["a", "red", "picture", "nothing", "but", "lime"]
    assert words["kind"] == "occlusion" and "how much the score falls" in page.inner_text("#explains")
    for number in (1, 5):
        chips.nth(number).hover()
        assert lit(page) == [
            answering(item, found["regions"], number) for item, found in zip(words["items"], results, strict=True)
        ]
    assert sum(map(len, lit(page))) > 0
    page.mouse.move(5, 5)
    assert sum(map(len, lit(page))) == 0
    chips.nth(1).click()  # held
    page.mouse.move(5, 5)
    assert sum(map(len, lit(page))) > 0


def test_pointing_at_a_region_lights_its_words(open_page, server):
    page = open_page(f"/?q={urllib.parse.quote(SENTENCE)}")
    found = api_search(server, SENTENCE)["results"][0]
    item = api_words(server, SENTENCE, [found["item"]])["items"][0]
    x1, y1, x2, y2 = found["regions"][0]["box"]
    box = page.locator(".picture").first.bounding_box()
    page.mouse.move(box["x"] + (x1 + x2) / 2 * box["width"], box["y"] + (y1 + y2) / 2 * box["height"])
    strengths = page.locator(".word").evaluate_all("(all) => all.map((chip) => Number(chip.style.getPropertyValue('--strength')))")
    assert strengths == pytest.approx([word[0] for word in item["strength"]], abs=1e-5)
    assert page.inner_text(".strength") == CLASSES[0]


def test_arrow_keys_walk_words_and_regions(open_page):
    page = open_page(f"/?q={urllib.parse.quote(SENTENCE)}")
    page.locator(".word").first.focus()
    on = "() => [...document.querySelectorAll('.word')].findIndex((chip) => chip.classList.contains('on'))"
    walked = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        walked.append(page.evaluate(on))
        assert page.evaluate("document.activeElement.classList.contains('on')")
    assert walked == [1, 2, 1, 5, 0, 5, 0]
    assert page.text_content("#spoken").startswith("a: ")
    page.keyboard.press("Escape")
    assert page.evaluate(on) == -1
    page.locator(".picture").first.focus()
    shown = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
        shown.append(page.inner_text(".strength"))
    assert shown == [CLASSES[0], CLASSES[1], CLASSES[0], CLASSES[3]]


def test_photographs_are_chosen_dropped_and_pasted(open_page, server, project, tmp_path):
    page = open_page()
    photograph = project / "data/dataset/images/red.png"
    page.set_input_files("#file", photograph)
    page.wait_for_selector(".caption.found")
    answer = ask(server, "/api/search?k=12&find=captions", photograph.read_bytes(), "image/png")
    assert page.locator(".caption.found").all_inner_texts() == [found["caption"] for found in answer["results"]]
    assert cards(page) == expected(answer)
    assert page.locator("#asked img").evaluate("(image) => image.naturalWidth") == 48
    page.click("#find [value=images]")
    page.wait_for_selector(".caption.found", state="detached")
    settled(page)
    answer = ask(server, "/api/search?k=12&find=images", photograph.read_bytes(), "image/png")
    assert cards(page) == expected(answer)
    for kind, value in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        search(page, SENTENCE)
        page.evaluate(
            """async ([kind, value, source]) => {
                const data = new DataTransfer(), content = await (await fetch(source)).blob();
                data.items.add(new File([content], "lime.jpg", { type: "image/jpeg" }));
                const event = new Event(kind, { bubbles: true, cancelable: true });
                Object.defineProperty(event, value, { value: data });
                document.body.dispatchEvent(event);
            }""",
            [kind, value, "/images/1"],
        )
        page.wait_for_selector(".caption.found")
        settled(page)
        assert page.inner_text("#asked span") == "lime.jpg"
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    page.set_input_files("#file", text)
    assert page.inner_text("#error span") == "notes.txt is no photograph, but text/plain."
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    page.set_input_files("#file", broken)
    page.wait_for_selector(".card", state="detached")
    assert page.locator("#error").is_visible() and "\n" not in page.inner_text("#error span")


def test_a_file_above_the_limit_is_not_sent(open_page, server, tmp_path):
    page, sent = open_page(), []
    page.on("request", lambda request: sent.append(request.method))
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(ask(server, "/api/about")["max_bytes"] + 1))
    page.set_input_files("#file", large)
    page.wait_for_selector("#error:not([hidden])")
    assert "at most 32 MB" in page.inner_text("#error span") and "POST" not in sent


def test_back_and_forward(open_page, server):
    page = open_page()
    search(page, "a red picture")
    first = cards(page)
    search(page, "nothing but lime")
    page.locator(".similar").nth(1).click()
    page.wait_for_url("**/?item=*")
    settled(page)
    item = api_search(server, "nothing but lime")["results"][1]["item"]
    assert cards(page) == expected(ask(server, f"/api/similar/{item}?k=12"))
    assert page.locator("#asked").is_visible() and page.input_value("#q") == ""
    page.go_back()
    settled(page)
    assert page.input_value("#q") == "nothing but lime"
    page.go_back()
    settled(page)
    assert (page.input_value("#q"), cards(page)) == ("a red picture", first)
    page.go_forward()
    settled(page)
    assert cards(page) == expected(api_search(server, "nothing but lime"))
    for _ in range(2):
        page.go_back()
    settled(page)
    assert page.locator(".samples img").count() == len(COLOURS)


def test_with_the_keyboard_alone(open_page):
    page = open_page()
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    settled(page)
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => {
                const element = document.activeElement, style = getComputedStyle(element);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                const box = element.closest(".box");
                return [element.id || element.className || element.tagName, ring || Boolean(box && getComputedStyle(box).boxShadow !== "none")];
            }"""
        )
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


@pytest.mark.parametrize("path", ["/", f"/?q={urllib.parse.quote(ODD)}&boxes=1", "/?q=a+red+picture&against=1", "/?q=" + "a" * 300])
def test_390_pixels_wide(open_page, path):
    page = open_page(path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if "q=" in path:
        right = page.locator(".card").evaluate_all("(all) => Math.max(...all.map((card) => card.getBoundingClientRect().right))")
        assert right <= 390
        small = page.locator("button:visible").evaluate_all("(all) => all.filter((button) => button.getBoundingClientRect().height < 24).length")
        assert small == 0
        page.locator(".word").first.tap()
        assert page.locator(".word").first.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible_in_light_and_dark(open_page, scheme):
    page = open_page(f"/?q={urllib.parse.quote(SENTENCE)}&boxes=1&against=1", color_scheme=scheme)
    colours = page.evaluate(
        """() => [...document.querySelectorAll("h1 a, #about, #q, .box button, .options button, .word, #explains, #status, .facts *, .caption, .names li, .file a, h2 small")]
            .filter((element) => element.checkVisibility()).map((element) => {
                let behind = element;
                while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
                return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor, element.className || element.id];
            })"""
    )
    assert len(colours) > 40
    for colour, background, name in {tuple(entry) for entry in colours}:
        assert contrast(numbers(colour), numbers(background)) >= 4.5, name
    dark = sum(numbers(page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]) < 1.5
    assert dark == (scheme == "dark")


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


def test_two_matchers_next_to_each_other(open_page, server):
    page = open_page(f"/?q={urllib.parse.quote(SENTENCE)}&k=5")
    page.click("#against")
    page.wait_for_selector(".compared .column + .column .card")
    settled(page)
    assert "against=1" in page.url
    answers = [api_search(server, SENTENCE, k=5, matcher=matcher) for matcher in (0, 1)]
    for number, answer in enumerate(answers):
        assert cards(page, number) == expected(answer)
    before = {found["item"]: found["rank"] for found in answers[0]["results"]}
    moves = page.locator(".column + .column .move").evaluate_all("(all) => all.map((move) => move.firstChild.textContent)")
    for found, move in zip(answers[1]["results"], moves, strict=True):
        by = before.get(found["item"], 0) - found["rank"]
        if found["item"] not in before:
            assert move == "new"
        else:
            assert move == (f"{'▲' if by > 0 else '▼'} {abs(by)}" if by else "=")
    gone = set(before) - {found["item"] for found in answers[1]["results"]}
    assert page.locator(".column").first.locator(".move").count() == len(gone)
    assert "alignment" in page.inner_text("#explains") and "falls" in page.inner_text("#explains")
    page.locator(".word").nth(1).hover()
    items = [found["item"] for found in answers[1]["results"]]
    words = api_words(server, SENTENCE, items, matcher=1)
    shown = lit(page)[5:]
    assert shown == [answering(item, found["regions"], 1) for item, found in zip(words["items"], answers[1]["results"], strict=True)]


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


def test_results_come_before_their_explanation(open_page):
    page = open_page()
    held = []
    page.route("**/api/words", lambda route: held.append(route))
    page.fill("#q", SENTENCE)
    page.press("#q", "Enter")
    page.wait_for_selector(".card")
    page.wait_for_function("document.querySelectorAll('.word').length === 6")
    page.locator(".word").nth(1).hover()
    assert sum(map(len, lit(page))) == 0 and "worked out" in page.inner_text("#explains")
    for _ in range(50):
        if held:
            break
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_selector(".answer", state="attached")
    assert "falls" in page.inner_text("#explains")


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
        assert lines == ([] if above == len(COLOURS) else [f"Nothing here fits well{' below this line' if above else ''}"])


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
