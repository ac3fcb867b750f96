"""How long a report of 10,000 records takes, and how large its page is.

Limits: 10 s for HTML, Markdown and data, 60 s with PNG, SVG and PDF, 12 MB of HTML, on two cores.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import dashboard
from workbench.report import write_report
from workbench.report.images import browser

NUM_RECORDS = 10_000
PLAIN_S, DRAWN_S, HTML_BYTES = 10.0, 60.0, 12_000_000


class Figure(NamedTuple):
    """One figure of a report, its unit, and the most that it should be."""

    name: str
    value: float
    limit: float
    unit: str


def figures() -> list[Figure]:
    """Both times and the size; without a Chromium nothing is drawn, and that time is left out."""
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder) / "s.db", Path(folder) / "out"
        dashboard.build(store, NUM_RECORDS)
        start = time.perf_counter()
        written = write_report(store, out, static_images=False)
        plain = time.perf_counter() - start
        found = [
            Figure("HTML, Markdown, data", plain, PLAIN_S, "s"),
            Figure("size of the HTML", written.html.stat().st_size, HTML_BYTES, "B"),
        ]
        if browser() is not None:
            start = time.perf_counter()
            write_report(store, out)
            drawn = time.perf_counter() - start
            found.insert(1, Figure("with PNG, SVG and PDF", drawn, DRAWN_S, "s"))
        return found
