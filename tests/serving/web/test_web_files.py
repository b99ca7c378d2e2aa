"""The files of the page, as the server sends them."""

import re
import tracemalloc

import pytest

from crossmodal.reports.page import environment
from crossmodal.serving.web import page_html, static_file


def test_every_file_that_the_page_names_is_sent():
    html = page_html()
    names = set(re.findall(r'"/static/([\w.]+)"', html))
    scripts = {name for name in names if name.endswith(".js")}
    for name in sorted(scripts):
        content, media_type = static_file(name)
        assert media_type == "text/javascript; charset=utf-8"
        assert set(re.findall(r'from "\./([\w.]+)"', content.decode())) <= scripts  # all are asked for in good time
    assert static_file("icon.svg")[1].startswith("image/svg+xml")


def test_the_look_is_that_of_the_reports():
    look = environment().get_template("look.css").render()
    assert static_file("style.css")[0].decode().startswith(look)


@pytest.mark.parametrize("name", ["__init__.py", "page.html", "routes.html.j2", "../api.py", "none.js", "", "."])
def test_no_other_file_is_sent(name):
    assert static_file(name) is None


def test_names_that_clients_ask_for_are_not_kept():
    static_file("page.js")
    tracemalloc.start()
    for number in range(100):
        assert static_file(f"{number}{'x' * 10_000}") is None
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 100_000  # of 1,000,000 characters


def test_nothing_is_made_of_markup():
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(")
    for name in ("page.js", "cards.js", "words.js", "home.js", "dom.js", "photograph.js"):
        assert not forbidden.search(static_file(name)[0].decode())
