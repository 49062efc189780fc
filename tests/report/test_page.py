"""The page in a real browser (headless Chromium), opened as a file and clicked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def page_file(played: Callable[[str, int], Path]) -> Path:
    """The page of a real run in which higher-order bugs grew."""
    return played("seen", 3) / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, ready; afterwards nothing may have gone wrong or over the network."""
    wrong: list[str] = []
    tab = browser.new_page(**getattr(request, "param", {}))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("request", lambda r: None if r.url.startswith("file:") else wrong.append(r.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("body[data-ready=true]")
    yield tab
    tab.close()
    assert not wrong


def test_curves_and_coverage_are_drawn(page: Any) -> None:
    page.wait_for_selector("#overview figure:last-child svg")
    assert page.locator("#overview figure").count() >= 4
    page.click("nav >> text=coverage")
    page.wait_for_selector("#coverage figure:last-child svg")
    assert page.locator("#overview").is_hidden()
    assert "Bugs by file" in page.locator("#coverage").inner_text()


def test_any_metric_can_be_chosen(page: Any) -> None:
    page.wait_for_selector("#overview figure:last-child svg")
    before = page.locator("#overview figure:last-child svg").inner_html()
    page.select_option("#overview select", "solver/num_attempts")
    page.wait_for_timeout(300)
    assert page.locator("#overview figure:last-child svg").inner_html() != before


def test_a_bug_opens_with_its_diff_and_attempts(page: Any) -> None:
    page.click("nav >> text=bugs")
    row = page.locator("#bugs tbody tr").first
    name = row.locator("td").first.inner_text()
    row.click()
    page.wait_for_selector("dialog pre .del")
    assert page.locator("dialog h2").first.inner_text() == name
    attempt = page.locator("dialog details:has-text('weights')").first
    attempt.locator("summary").click()
    assert attempt.locator("pre").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()


def test_a_filter_finds_and_the_keyboard_opens(page: Any) -> None:
    page.click("nav >> text=bugs")
    total = page.locator("#bugs tbody tr").count()
    page.fill("#bugs input", "higher")
    page.fill("#bugs input", page.locator("#bugs tbody tr td").nth(1).inner_text())
    assert 0 < page.locator("#bugs tbody tr").count() < total
    page.fill("#bugs input", "no such bug")
    assert page.locator("#bugs tbody tr").count() == 0
    assert page.locator("#bugs .count").inner_text() == f"0 of {total}"
    page.fill("#bugs input", "")
    page.locator("#bugs tbody tr").first.press("Enter")
    page.wait_for_selector("dialog pre")


def test_the_ancestry_leads_from_a_higher_order_bug_to_its_parent(page: Any) -> None:
    page.click("nav >> text=bugs")
    rows = page.locator("#bugs tbody tr:has(td:text-is('higher'))")
    assert rows.count() > 0
    rows.first.click()
    parent = page.locator("dialog .ancestry a").first
    name = parent.inner_text()
    parent.click()
    page.wait_for_function(f"document.querySelector('dialog h2').textContent === '{name}'")


def test_an_injection_leads_to_its_bug(page: Any) -> None:
    page.click("nav >> text=injections")
    page.locator("#injections tbody tr:has-text('valid')").first.click()
    page.wait_for_selector("dialog pre")
    page.click("dialog >> text=its bug")
    page.wait_for_selector("dialog >> text=attempts")


@pytest.mark.parametrize("page", [{"viewport": PHONE, "color_scheme": "dark"}], indirect=True)
def test_it_fits_a_phone_in_the_dark(page: Any) -> None:
    for name in ("overview", "coverage", "bugs", "injections"):
        page.click(f"nav >> text={name}")
        page.wait_for_timeout(500)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], f"{name} is {wide} pixels wide"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
