"""A real server over the tiny pipeline, and a headless browser that opens its page."""

import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def project(pipeline, tmp_path_factory):
    """The tiny pipeline, its regions named."""
    from page_server import name_regions

    folder = tmp_path_factory.mktemp("served") / "pipeline"
    shutil.copytree(pipeline, folder)
    name_regions(folder / "data/regions")
    return folder


@pytest.fixture(scope="session")
def server(project):
    """The address of a server of vsepp, and scan to compare it with."""
    from page_server import open_session, serving

    with serving(open_session(project, "vsepp"), open_session(project, "scan")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH; one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens a path of the server; at the end no script has failed and the content security policy was kept."""
    from page_reading import settled

    said, contexts = [], []

    def hear(line):
        if line.type == "error" and "Failed to load resource" not in line.text:  # an answer with an error is no fault
            said.append(line.text)

    def _open(path="/", address=server, width=1200, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", hear)
        page.goto(address + path)
        settled(page)
        return page

    yield _open
    for context in contexts:
        context.close()
    assert not said
