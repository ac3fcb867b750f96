"""Pictures of the dashboard: ``python -m tests.pictures STORE.db docs/pictures [QUERY]``.

QUERY is the end of a link, such as ``pass=train&source=predicted``.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from workbench.report.images import browser

APP = Path(__file__).resolve().parents[1] / "app.py"
PLOT, LIMIT = ".js-plotly-plot .point", "text=Largest that fits"
PICTURES = {
    "dashboard.png": ("scaling", "light", PLOT, 1080),
    "dashboard-planner.png": ("planner", "dark", f"{LIMIT} >> nth=3", 1330),
}
"""File to page, theme, what the page shows once it is complete, and pixels of height."""
PATIENCE_MS = 300_000
"""The planner predicts a dozen cells for its first picture."""


def main(store: Path, folder: Path, query: str = "") -> None:
    """Take each picture over ``store``."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(APP),
        f"--server.port={port}",
        "--",
        store.name,
    ]
    server = subprocess.Popen(command, cwd=store.resolve().parent, stdout=subprocess.DEVNULL)
    try:
        _wait(f"{address}/_stcore/health")
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
            for name, (page, theme, complete, height) in PICTURES.items():
                tab = chromium.new_page(
                    viewport={"width": 1440, "height": height},
                    color_scheme="dark" if theme == "dark" else "light",
                )
                tab.goto(f"{address}/{page}?{query}")
                tab.locator(complete).first.wait_for(timeout=PATIENCE_MS)
                tab.get_by_test_id("stSpinner").wait_for(state="detached", timeout=PATIENCE_MS)
                tab.wait_for_timeout(2_000)
                tab.screenshot(path=folder / name)
            chromium.close()
    finally:
        server.terminate()
        server.wait()


def _wait(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(0.25)
        else:
            return
    raise SystemExit("the dashboard did not start")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
