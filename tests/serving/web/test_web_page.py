"""The page of ``crossmodal serve`` in a headless browser: what a visitor sees is what the server answered."""

import re
import urllib.parse

import pytest
from page_reading import (
    PATH,
    SENTENCE,
    answering,
    api_search,
    api_words,
    ask,
    cards,
    eventually,
    expected,
    lit,
    search,
    settled,
)
from page_server import CLASSES
from tiny_pipeline import COLOURS


def test_a_sentence_shows_what_the_server_found(open_page, server):
    page = open_page()
    assert page.locator(".samples img").count() == len(COLOURS)
    search(page, SENTENCE)
    answer = api_search(server, SENTENCE)
    assert cards(page) == expected(answer)
    gaps = page.locator(".facts .faint").all_inner_texts()
    assert [float(gap) for gap in gaps] == [pytest.approx(found["gap"], abs=6e-4) for found in answer["results"][:-1]]
    assert (
        page.locator(".card").first.locator(".captions .caption").all_text_contents()
        == answer["results"][0]["captions"]
    )
    assert page.locator(".card").first.locator(".names li").all_text_contents() == CLASSES
    assert page.title().startswith(SENTENCE)
    status = page.inner_text("#status")
    assert re.search(r"encode [\d.]+ ms", status) and re.search(r"search [\d.]+ ms", status)
    loaded = "(all) => all.filter((image) => image.naturalWidth === 48).length"
    eventually(lambda: page.locator(".card img").evaluate_all(loaded), len(COLOURS))


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
    page = open_page(PATH)
    results = api_search(server, SENTENCE)["results"]
    words = api_words(server, SENTENCE, [found["item"] for found in results])
    chips = page.locator(".word")
    assert (
        chips.all_inner_texts()
        == [word["text"] for word in words["words"]]
        == ["a", "red", "picture", "nothing", "but", "lime"]
    )
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
    page = open_page(PATH)
    results = api_search(server, SENTENCE)["results"]
    found, item = results[0], api_words(server, SENTENCE, [found["item"] for found in results])["items"][0]
    x1, y1, x2, y2 = found["regions"][0]["box"]
    box = page.locator(".picture").first.bounding_box()
    page.mouse.move(box["x"] + (x1 + x2) / 2 * box["width"], box["y"] + (y1 + y2) / 2 * box["height"])
    strengths = page.locator(".word").evaluate_all(
        "(all) => all.map((chip) => Number(chip.style.getPropertyValue('--strength')))"
    )
    assert strengths == pytest.approx([word[0] for word in item["strength"]], abs=1e-5)
    assert page.inner_text(".strength") == CLASSES[0]


def test_arrow_keys_walk_words_and_regions(open_page):
    page = open_page(PATH)
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
    eventually(lambda: page.locator("#asked img").evaluate("(image) => image.naturalWidth"), 48)
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


@pytest.mark.parametrize("matcher", [0, 1])
def test_words_of_captions_found_light_regions_of_their_own_card(open_page, server, project, matcher):
    page = open_page("/?against=1" if matcher else "/")
    photograph = project / "data/dataset/images/red.png"
    page.set_input_files("#file", photograph)
    page.wait_for_selector(".caption.found")
    settled(page)
    path = f"/api/search?k=12&find=captions&matcher={matcher}"
    results = ask(server, path, photograph.read_bytes(), "image/png")["results"]
    before = 12 * matcher  # cards of the first matcher
    for number in (0, 3):
        found, card = results[number], page.locator(".card").nth(before + number)
        chips = card.locator(".caption.found .word")
        assert card.locator(".caption.found").inner_text() == found["caption"]
        assert chips.all_inner_texts() == [word["text"] for word in found["words"]] != []
        (item,) = api_words(server, found["caption"], [found["item"]], matcher)["items"]
        chips.nth(1).hover()
        there = lit(page)
        assert there.pop(before + number) == answering(item, item["regions"], 1)
        assert sum(map(len, there)) == 0
        x1, y1, x2, y2 = item["regions"][0]["box"]
        box = card.locator(".picture").bounding_box()
        page.mouse.move(box["x"] + (x1 + x2) / 2 * box["width"], box["y"] + (y1 + y2) / 2 * box["height"])
        strengths = "(all) => all.map((chip) => Number(chip.style.getPropertyValue('--strength')))"
        assert chips.evaluate_all(strengths) == pytest.approx([word[0] for word in item["strength"]], abs=1e-5)
        others = page.locator(".card").nth(before + 1).locator(".word").evaluate_all(strengths)
        assert set(others) == {0}
    chips.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == results[3]["words"][1]["text"]
    assert "Point at a word" in page.inner_text("#explains") and page.locator("#bar").is_hidden()


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
    eventually(lambda: page.input_value("#q"), "nothing but lime")
    page.go_back()
    eventually(lambda: (page.input_value("#q"), cards(page)), ("a red picture", first))
    page.go_forward()
    eventually(lambda: cards(page), expected(api_search(server, "nothing but lime")))
    page.go_back()
    eventually(lambda: page.input_value("#q"), "a red picture")
    page.go_back()
    eventually(page.locator(".samples img").count, len(COLOURS))


def test_two_matchers_next_to_each_other(open_page, server):
    page = open_page(PATH + "&k=5")
    page.click("#against")
    page.wait_for_selector(".compared .column + .column .card")
    settled(page)
    assert "against=1" in page.url
    answers = [api_search(server, SENTENCE, k=5, matcher=matcher) for matcher in (0, 1)]
    for number, answer in enumerate(answers):
        assert cards(page, number) == expected(answer)
    before = {found["item"]: found["rank"] for found in answers[0]["results"]}
    moves = page.locator(".column + .column .move").evaluate_all(
        "(all) => all.map((move) => move.firstChild.textContent)"
    )
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
    assert shown == [
        answering(item, found["regions"], 1) for item, found in zip(words["items"], answers[1]["results"], strict=True)
    ]


def test_results_come_before_their_explanation(open_page):
    page = open_page()
    held = []
    page.route("**/api/words", lambda route: held.append(route))
    page.fill("#q", SENTENCE)
    page.press("#q", "Enter")
    page.wait_for_selector(".card")
    page.wait_for_selector("body[data-work=explanation]")
    assert page.locator(".word").count() == 6
    page.locator(".word").nth(1).hover()
    assert sum(map(len, lit(page))) == 0 and "worked out" in page.inner_text("#explains")
    page.wait_for_timeout(100)
    held[0].continue_()
    page.wait_for_selector(".answer", state="attached")
    assert "falls" in page.inner_text("#explains")
