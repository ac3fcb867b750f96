"""The pictures of docs/: ``python -m tests.pictures [FOLDER]``, as ``make reference`` ends.

All show the records in ``reports/reference``, and the report that lies beside them. Nothing is
measured.
"""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path

import kaleido
from playwright.sync_api import Browser, sync_playwright

from tests.reference import FOLDER as REFERENCE
from tests.reference import LAYER, ROOT, STORE
from workbench.analysis import fit
from workbench.figures import LIGHT, SCALING_METRICS, scaling
from workbench.report.images import browser
from workbench.telling.material import gather

FOLDER = ROOT / "docs" / "pictures"
FIGURE, REPORT = "h100-80gb.png", "report.png"
LINES = ("S-Attn · eager", "S-Attn · flash", "S-Attn · cudnn", "D-Attn · flash")
POINT, LIMIT = ".js-plotly-plot .point", "text=Largest that fits"
PAGES = {
    "dashboard.png": ("scaling", "light", POINT, 1080),
    "dashboard-planner.png": ("planner", "dark", f"{LIMIT} >> nth=3", 1960),
}
"""File to page of the dashboard, theme, what it shows once it is complete, pixels of height."""
PATIENCE_MS = 300_000
"""The planner predicts a dozen cells for its first picture."""


def figure(path: Path) -> None:
    """FLOPs, memory and seconds of one layer's training, as the report draws them."""
    store = gather(STORE, lambda every: every, "")
    frame = store.frame
    rows = frame[
        (frame["scope"] == LAYER.scope)
        & (frame["pass"] == LAYER.pass_)
        & frame["series"].isin(LINES)
    ]
    _, curves = fit(rows, SCALING_METRICS)
    # Bands of five points, two of them the host's, would hide what the picture is for.
    drawn = scaling(rows, curves.assign(low=nan, high=nan), store.looks, LIGHT)
    drawn.update_layout(paper_bgcolor=LIGHT.paper)
    drawn.update_traces(line_width=2.4, selector=lambda trace: "lines" in (trace.mode or ""))
    asyncio.run(_write(drawn, path))


async def _write(drawn: object, path: Path) -> None:
    async with kaleido.Kaleido(n=1, mathjax=False, path=browser()) as painter:
        size = {"width": 1280, "height": 460, "scale": 1.5, "format": "png"}
        await painter.write_fig(drawn, path=path, opts=size)


def report(chromium: Browser, path: Path) -> None:
    """The first page of the report beside the records, from the question on."""
    tab = chromium.new_page(viewport={"width": 1240, "height": 1000})
    tab.goto((REFERENCE / "report" / "report.html").as_uri())
    tab.locator("#first").scroll_into_view_if_needed()  # A figure is drawn once it is looked at.
    tab.locator(POINT).first.wait_for()
    tab.wait_for_timeout(1_000)
    tab.evaluate("window.scrollTo(0, 0)")
    page = tab.locator("header .first").bounding_box()
    assert page is not None, "the report has a first page"
    whole = {"x": 0, "y": 0, "width": 1240, "height": page["y"] + page["height"] + 24}
    tab.screenshot(path=path, clip=whole, full_page=True)


def dashboard(chromium: Browser, folder: Path) -> None:
    """Pages of the dashboard over the records."""
    with _served(STORE) as address:
        for name, (page, theme, complete, height) in PAGES.items():
            tab = chromium.new_page(
                viewport={"width": 1440, "height": height},
                color_scheme="dark" if theme == "dark" else "light",
            )
            tab.goto(f"{address}/{page}")
            tab.locator(complete).first.wait_for(timeout=PATIENCE_MS)
            tab.get_by_test_id("stSpinner").wait_for(state="detached", timeout=PATIENCE_MS)
            tab.wait_for_timeout(2_000)
            tab.screenshot(path=folder / name)


@contextmanager
def _served(store: Path) -> Iterator[str]:
    """The address of a dashboard over ``store``, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "workbench", "dashboard", store.name, "--port", str(port)]
    server = subprocess.Popen(command, cwd=store.parent, stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(0.25)
        else:
            return
    raise SystemExit("the dashboard did not start")


def main(folder: Path = FOLDER) -> None:
    """Take every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    figure(folder / FIGURE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        report(chromium, folder / REPORT)
        dashboard(chromium, folder)
        chromium.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
