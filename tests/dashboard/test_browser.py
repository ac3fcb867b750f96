"""The dashboard and a report in a real browser: drawn, linked, quiet, and nothing leaves."""

import csv
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests import golden
from tests.dashboard.test_pages import PAGES
from workbench.aspects import ASPECTS
from workbench.report import write_report
from workbench.report.images import browser as chromium
from workbench.store import Store

HINT = "no Chromium; on Debian and Ubuntu: apt-get install chromium"
pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason=HINT)]

APP = Path(__file__).resolve().parents[2] / "app.py"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
PLOT = ".js-plotly-plot"


@pytest.fixture(scope="module")
def address(stores: Path) -> Iterator[str]:
    """A dashboard started as the README says, in the folder of the golden stores."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), f"--server.port={port}"]
    server = subprocess.Popen(
        command, cwd=stores, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                if urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).read() == b"ok":
                    break
            except OSError:
                time.sleep(0.25)
        else:
            server.kill()
            pytest.fail(f"the dashboard did not start: {server.communicate()[0]}")
        assert listens_on_loopback_only(port)
        yield url
    finally:
        server.terminate()
        server.wait()


def listens_on_loopback_only(port: int) -> bool:
    """Whether no socket of every interface listens on ``port`` (Linux: /proc/net)."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    places = [line.split()[1].split(":") for table in tables for line in table]
    return not any(int(at, 16) == port and set(where) == {"0"} for where, at in places)


@pytest.fixture(scope="module")
def running() -> Iterator[BrowserContext]:
    """One context, so that plotly's megabytes are fetched once."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found.new_context(viewport={"width": 1440, "height": 1000})
        found.close()


@pytest.fixture
def tab(running: BrowserContext) -> Iterator[Page]:
    """A tab that fails the test on an error in the console or a request to another machine."""
    page = running.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if is_fault(m) else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    page.on("request", lambda r: None if is_local(r.url) else faults.append(f"left: {r.url}"))
    yield page
    page.close()
    assert faults == []


def is_fault(message: ConsoleMessage) -> bool:
    """An error in the console, but for Streamlit's own search for its server below the page."""
    probing = message.location["url"].endswith(("/_stcore/health", "/_stcore/host-config"))
    return message.type == "error" and not probing


def is_local(url: str) -> bool:
    return url.startswith(("data:", "blob:", "file:")) or urlsplit(url).hostname == "127.0.0.1"


def layout(page: Page, path: str) -> object:
    return page.evaluate(f"document.querySelector('{PLOT}')._fullLayout.{path}")


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_the_page_draws_its_points(address: str, tab: Page) -> None:
    tab.goto(f"{address}/scaling?store=like_default.db")
    expect(tab.get_by_text("FLOPs executed (TFLOP)")).to_be_visible(timeout=60_000)
    assert tab.locator(f"{PLOT} .scatterlayer .point").count() > 100
    expect(tab.get_by_text("Measured on cpu: 15 cells")).to_be_visible()
    nothing_is_shared(tab)


def nothing_is_shared(page: Page) -> None:
    """Plotly's bar has buttons, but none that sends the figure somewhere."""
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map(e => e.dataset.title)")
    assert "Autoscale" in titles
    assert not [title for title in titles if re.search("share|cloud|edit", title, re.IGNORECASE)]


def test_a_toggle_changes_the_axis_and_the_url_and_the_link_restores_both(
    address: str, tab: Page
) -> None:
    tab.goto(f"{address}/scaling?store=like_default.db&metric=time&pass=forward")
    expect(tab.get_by_text("Seconds per iteration (s)")).to_be_visible(timeout=60_000)
    assert tab.get_by_text("FLOPs executed (TFLOP)").count() == 0
    assert layout(tab, "xaxis.type") == "log"
    tab.get_by_role("radiogroup", name="|V| axis").get_by_text("linear").click()
    tab.wait_for_function(
        f"document.querySelector('{PLOT}')._fullLayout.xaxis.type === 'linear'", timeout=15_000
    )
    assert query(tab) == {
        "store": ["like_default.db"],
        "metric": ["time"],
        "pass": ["forward"],
        "x": ["linear"],
    }
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    expect(tab.get_by_text("Seconds per iteration (s)")).to_be_visible(timeout=60_000)
    assert (layout(tab, "xaxis.type"), layout(tab, "yaxis.type")) == ("linear", "log")


def test_a_walk_through_every_page_keeps_the_store(address: str, tab: Page) -> None:
    tab.goto(f"{address}/?store=like_default.db")
    heading = tab.get_by_role("heading", level=1)
    expect(heading).to_have_text("What does a visual token cost?", timeout=60_000)
    seen = {heading.inner_text()}
    for link in tab.get_by_test_id("stSidebarNavLink").all()[1:]:
        before = heading.inner_text()
        link.click()
        expect(heading).not_to_have_text(before, timeout=60_000)
        expect(tab.get_by_test_id("stException")).to_have_count(0)
        assert query(tab)["store"] == ["like_default.db"]
        seen.add(heading.inner_text())
    assert len(seen) == len({*PAGES, *ASPECTS})


WIDER = """() => [...document.querySelectorAll("[data-testid=stMain], [data-testid=stMain] *")]
  .filter(e => e.scrollWidth > e.clientWidth + 1)
  .filter(e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
  .map(e => `${e.className} ${e.scrollWidth}`)"""
"""What of a page has to be scrolled sideways."""


@pytest.mark.parametrize("name", ["scaling", "memory", "runs"])
def test_nothing_of_a_narrow_page_scrolls_sideways(address: str, tab: Page, name: str) -> None:
    tab.set_viewport_size({"width": 420, "height": 900})
    tab.goto(f"{address}/{name}?store=like_default.db")
    shown = "[data-testid=stDataFrame]" if name == "runs" else PLOT
    expect(tab.locator(shown).first).to_be_visible(timeout=60_000)
    # The page is drawn once more when it has said that it is narrow.
    tab.wait_for_function(f"({WIDER})().length === 0", timeout=60_000)


def test_a_narrow_page_is_drawn_once(address: str, running: BrowserContext) -> None:
    page = running.new_page()
    page.set_viewport_size({"width": 420, "height": 900})
    upper = f"document.querySelector('{PLOT}')?._fullLayout?.yaxis2?.domain[1]"
    watch = f"const look = () => {{ const at = {upper}; if (at) window.uppers.add(at);"
    page.add_init_script(
        f"window.uppers = new Set(); {watch} requestAnimationFrame(look); }}; look();"
    )
    page.goto(f"{address}/scaling?store=like_default.db")
    page.wait_for_function(f"{upper} < 0.9", timeout=60_000)
    page.wait_for_timeout(500)
    assert page.evaluate("[...window.uppers].every((at) => at < 0.9)")
    page.close()


def test_panels_stand_side_by_side_again_in_a_wide_window(address: str, tab: Page) -> None:
    tab.set_viewport_size({"width": 420, "height": 900})
    tab.goto(f"{address}/scaling?store=like_default.db")
    upper = f"document.querySelector('{PLOT}')?._fullLayout.yaxis2?.domain[1]"
    tab.wait_for_function(f"{upper} < 0.9", timeout=60_000)
    tab.set_viewport_size({"width": 1440, "height": 900})
    tab.wait_for_function(f"{upper} === 1", timeout=60_000)


def test_another_store_is_picked_and_the_link_names_it(address: str, tab: Page) -> None:
    tab.goto(f"{address}/?store=like_default.db")
    expect(tab.get_by_text("holds 75 cells")).to_be_visible(timeout=60_000)
    tab.get_by_test_id("stSidebar").get_by_role("combobox").first.click()
    tab.get_by_role("option", name="one_cell.db").click()
    expect(tab.get_by_text("holds 1 cell of")).to_be_visible(timeout=60_000)
    assert query(tab)["store"] == ["one_cell.db"]


def test_hostile_names_are_shown_and_never_run(address: str, tab: Page) -> None:
    tab.goto(f"{address}/scaling?store=hostile.db")
    expect(tab.get_by_text("FLOPs executed (TFLOP)")).to_be_visible(timeout=60_000)
    assert tab.locator(f"{PLOT} text", has_text="<script>alert(1)</script>").count() > 0


@pytest.mark.parametrize("name", ["", "scaling", "roofline", "memory"])
def test_no_text_of_a_store_becomes_a_link(address: str, tab: Page, name: str) -> None:
    tab.goto(f"{address}/{name}?store=links.db")
    expect(tab.get_by_text("evil.example").first).to_be_visible(timeout=60_000)
    expect(tab.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)
    assert "evil.example" in tab.locator(".stMain").inner_text()
    hrefs = tab.eval_on_selector_all("a", "each => each.map(a => a.href)")
    assert not [href for href in hrefs if "evil" in href]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_is_saved_on_the_page_s_own_ground(address: str, tab: Page, kind: str) -> None:
    tab.goto(f"{address}/thresholds?store=like_default.db")
    expect(tab.locator(f"{PLOT} .scatterlayer .point").first).to_be_visible(timeout=60_000)
    with tab.expect_download(timeout=60_000) as waited:
        tab.get_by_role("button", name=kind.upper(), exact=True).click()
    assert waited.value.suggested_filename == f"thresholds.{kind}"
    content = Path(waited.value.path()).read_bytes()
    assert content.startswith(b"\x89PNG" if kind == "png" else b"<svg")
    assert layout(tab, "paper_bgcolor") == "rgba(0,0,0,0)"


def test_a_figure_s_rows_are_saved_as_csv(address: str, tab: Page) -> None:
    tab.goto(f"{address}/scaling?store=like_default.db&pass=forward")
    expect(tab.locator(f"{PLOT} .scatterlayer .point").first).to_be_visible(timeout=60_000)
    with tab.expect_download(timeout=60_000) as waited:
        tab.get_by_test_id("stDownloadButton").get_by_role("button").click()
    lines = Path(waited.value.path()).read_text(encoding="utf-8").splitlines()
    assert "num_visual" in next(csv.reader(lines[:1]))
    assert len(lines) == 1 + 24 + 18  # Measured and predicted cells of the forward pass.


def test_a_click_on_a_point_shows_its_operators_and_the_link_keeps_them(
    address: str, tab: Page
) -> None:
    tab.goto(f"{address}/roofline?store=like_default.db")
    points = tab.locator(f"{PLOT} .scatterlayer .point")
    expect(points.first).to_be_visible(timeout=60_000)
    tab.wait_for_timeout(1_000)
    box = points.last.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    heading = tab.get_by_role("heading", level=3)
    expect(heading).to_contain_text("at |V| =", timeout=60_000)
    said = heading.inner_text()
    assert len(query(tab)["cell"][0]) == 16
    tab.goto(tab.url)
    expect(heading).to_have_text(said, timeout=60_000)


def test_a_running_sweep_shows_up_by_itself(address: str, stores: Path, tab: Page) -> None:
    path = stores / "live.db"
    with Store.open(path, "w") as store:
        run = store.begin_run("live", {"name": "live"}, golden.LAPTOP)
        store.add(run, golden.record(num_visual=64))
        tab.goto(f"{address}/runs?store=live.db")
        expect(tab.get_by_text("1 record of 1 run", exact=True)).to_be_visible(timeout=60_000)
        store.add(run, golden.record(num_visual=128))
        expect(tab.get_by_text("2 records of 1 run", exact=True)).to_be_visible(timeout=60_000)


def test_a_request_without_the_page_s_token_is_refused(address: str) -> None:
    request = urllib.request.Request(
        f"{address}/_stcore/upload_file/session/file", data=b"x", method="PUT"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 403


def test_an_upload_is_opened_and_a_hostile_one_refused(
    address: str, stores: Path, tab: Page
) -> None:
    tab.goto(f"{address}/runs?store=like_default.db")
    tab.get_by_text("Look at a store from your own machine").click(timeout=60_000)
    cat = (stores / "not_a_store.db").read_bytes()
    hostile = {"name": "../../<b>cat</b>.db", "mimeType": "text/html", "buffer": cat}
    tab.locator("input[type=file]").set_input_files(hostile)
    expect(tab.get_by_test_id("stAlert")).to_contain_text("not a store", timeout=60_000)
    assert query(tab)["store"] == ["like_default.db"]
    tab.locator("input[type=file]").set_input_files(stores / "one_cell.db")
    expect(tab.get_by_text("1 record of 1 run", exact=True)).to_be_visible(timeout=60_000)
    assert query(tab)["store"] == ["upload-1.db"]


def test_an_upload_that_is_too_large_stays_with_the_reader(
    address: str, tmp_path: Path, tab: Page
) -> None:
    large = tmp_path / "large.db"
    with large.open("wb") as file:
        file.truncate(65 * 2**20)
    tab.goto(f"{address}/runs?store=like_default.db")
    tab.get_by_text("Look at a store from your own machine").click(timeout=60_000)
    sent: list[str] = []
    tab.on("request", lambda r: sent.append(r.url) if "upload_file" in r.url else None)
    tab.locator("input[type=file]").set_input_files(large)
    expect(tab.get_by_text("File must be 64.0MB or smaller")).to_be_visible(timeout=60_000)
    assert sent == []
    assert query(tab)["store"] == ["like_default.db"]


def test_a_report_opens_from_the_disk_and_draws_in_either_theme(
    stores: Path, tmp_path: Path, tab: Page
) -> None:
    files = write_report(stores / "hostile.db", tmp_path, static_images=False)
    for theme, ink in (("light", "#1b1f24"), ("dark", "#eef1f4")):
        tab.emulate_media(color_scheme="light" if theme == "light" else "dark")
        tab.goto(files.html.as_uri())
        expect(tab.locator(f"{PLOT} .scatterlayer .point").first).to_be_visible(timeout=60_000)
        assert layout(tab, "font.color") == ink
    nothing_is_shared(tab)
    assert re.search(r"<script>alert\(1\)", tab.locator("h2").nth(1).inner_text())


def test_a_link_to_overview_opens_the_first_page(address: str, tab: Page) -> None:
    tab.goto(f"{address}/overview?store=like_default.db")
    title = tab.get_by_role("heading", name="What does a visual token cost?")
    expect(title).to_be_visible(timeout=60_000)
    assert query(tab)["store"] == ["like_default.db"]
    assert tab.get_by_test_id("stSidebarNavLink").filter(has_text="Overview").count() == 1


@pytest.mark.parametrize("width", [1024, 420])
def test_no_short_table_is_cut(address: str, running: BrowserContext, width: int) -> None:
    page = running.new_page()
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{address}/thresholds?store=like_default.db")
    table = page.locator("table").first
    expect(table).to_be_visible(timeout=60_000)
    wide = table.evaluate("t => [t.scrollWidth, t.parentElement.clientWidth]")
    page.close()
    assert wide[0] <= wide[1]
