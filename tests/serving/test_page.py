"""The page in a real browser: search, pick, a new list at every click, neighbours."""

import contextlib
import shutil
import threading

import pytest

from tests.faults.services import free_port

playwright = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")

EVIL = "<img src=x onerror=\"document.title='harmed'\"> \u202e & <b>bold</b>"


@contextlib.contextmanager
def serve(model, path, token=""):
    """Serves a model with an item whose title holds markup; yields the address."""
    from recjax.serving.app import make_app
    from recjax.serving.metrics import Metrics
    from recjax.serving.new_items import NewItem
    from recjax.serving.open_store import open_store
    from recjax.serving.service import Service

    service = Service(str(model), open_store(str(path), "--store"), spare=8)
    items = [NewItem("evil", "one two drama", EVIL)]
    service.engine.insert_items(service.engine.encode_items(items).result()).result()
    port = free_port()
    settings = uvicorn.Config(
        make_app(service, Metrics(), token), port=port, log_level="error"
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()
        service.close()


@pytest.fixture(scope="module")
def address(finished, tmp_path_factory):
    with serve(finished, tmp_path_factory.mktemp("page") / "events.sqlite") as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    problems = []
    opened.on("pageerror", lambda e: problems.append(str(e)))
    opened.goto(address)
    opened.wait_for_selector("#list li")
    yield opened
    assert not problems
    opened.close()


def titles(page, name):
    return page.locator(f"#{name} .title").all_inner_texts()


def test_the_list_changes_at_every_click(page):
    assert "most popular" in page.inner_text("#source")
    before = titles(page, "list")
    for turn in range(1, 4):
        page.locator("#found button", has_text="pick").nth(turn).click()
        page.wait_for_function(
            f"document.querySelectorAll('#history li').length == {turn}"
        )
        page.wait_for_function(
            "before => [...document.querySelectorAll('#list .title')]"
            ".map(x => x.textContent).join() != before.join()",
            arg=before,
        )
        assert not set(titles(page, "history")) & set(titles(page, "list"))
        before = titles(page, "list")
    assert "From your history" in page.inner_text("#source")
    assert page.locator("#list small").first.inner_text().startswith("because of ")
    page.locator("#clear").click()
    page.wait_for_function("document.querySelectorAll('#history li').length == 0")
    page.wait_for_function(
        "document.querySelector('#source').textContent.includes('popular')"
    )


def test_search_and_similar_items(page):
    page.fill("#query", "onerror")
    page.wait_for_function("document.querySelectorAll('#found li').length == 1")
    assert page.evaluate("document.querySelector('#found .title').textContent") == EVIL
    assert page.title() == "recjax"
    page.locator("#found button", has_text="similar").click()
    page.wait_for_selector("#similar li")
    assert "cosine" in page.locator("#similar small").first.inner_text()
    page.fill("#query", "no such title")
    page.wait_for_function("document.querySelectorAll('#found li').length == 0")


def test_nothing_is_wider_than_the_screen(page):
    page.locator("#found button", has_text="pick").first.click()
    page.wait_for_selector("#history li")
    overflow = (
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert page.evaluate(overflow) <= 0


def test_errors_are_shown(page):
    page.route(
        "**/recommend", lambda route: route.fulfill(status=503, json={"error": "no"})
    )
    page.locator("#found button", has_text="pick").first.click()
    page.wait_for_function("document.querySelector('#error').textContent == 'no'")


def test_a_token_is_asked_for(browser, finished, tmp_path):
    with serve(finished, tmp_path / "events.sqlite", token="right") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#login", state="visible")
        assert page.inner_text("#error") == "a bearer token is required"
        for token, visible in (("wrong", True), ("right", False)):
            page.fill("#token", token)
            with page.expect_response("**/recommend"):
                page.click("#login button")
            error = "a bearer token is required" if visible else ""
            page.wait_for_function(
                "error => document.querySelector('#error').textContent == error",
                arg=error,
            )
            assert page.is_visible("#login") == visible
        page.wait_for_selector("#list li")
        assert page.inner_text("#error") == ""
        page.close()


def test_no_token_is_asked_for_without_need(page):
    assert not page.is_visible("#login")
