"""The page in a browser: one sheet of paper in front, and nothing cut on a phone."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.reference import STORE
from tests.report.test_own_words import case_of
from workbench.report import write_report
from workbench.report.images import browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

A4 = {"width": 1032, "height": 702}
"""Pixels of A4 across, less margins of 12 mm."""
CUT = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => {
  const frame = plot.getBoundingClientRect();
  return [...plot.querySelectorAll('text')].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.right > frame.right + 1 || box.left < frame.left - 1);
  }).map((text) => `${plot.id}: ${text.textContent}`);
})"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("screens")
    files = write_report(STORE, folder, False, note="Our **own** words.", case=case_of())
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page()
        page.goto(files.html.as_uri())
        yield page
        chromium.close()


@pytest.mark.parametrize("width", [1440, 1024, 420])
def test_no_word_of_a_figure_is_cut(tab: Page, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.reload()
    figures = tab.locator(".canvas")
    for place in range(figures.count()):
        figures.nth(place).scroll_into_view_if_needed()
        figures.nth(place).locator(".main-svg").first.wait_for()
    assert tab.evaluate(CUT) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_page_prints_on_one_sheet_and_the_screen_comes_back(tab: Page) -> None:
    tab.set_viewport_size(A4)
    tab.reload()
    wide = "document.querySelector('#first .main-svg').getBoundingClientRect().width"
    tab.locator("#first").scroll_into_view_if_needed()
    tab.locator("#first .main-svg").first.wait_for()
    before = tab.evaluate(wide)
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    box = tab.locator(".first").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= A4["height"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= A4["width"]
    tab.emulate_media(media="screen")
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    tab.wait_for_timeout(500)
    assert tab.evaluate(wide) == pytest.approx(before, abs=1)
