"""A store of a million metric rows, page by page."""

from pathlib import Path

import pytest

from tests.benchmarks import dashboard as bench
from tests.dashboard.test_pages import PAGES, WITHOUT_STORE


@pytest.mark.slow
def test_every_page_draws_a_million_metric_rows(tmp_path: Path) -> None:
    """Figures stay within their size, which is asserted there; `make bench` holds the times."""
    found = [time.name for time in bench.measure(bench.build_both(tmp_path))]
    assert len(found) == 2 * len(bench.PAGES) - len(WITHOUT_STORE)
    assert set(bench.PAGES) == set(PAGES)
