"""A store of a million metric rows, page by page."""

from pathlib import Path

import pytest

from tests.benchmarks import dashboard as bench


@pytest.mark.slow
def test_every_page_draws_a_million_metric_rows(tmp_path: Path) -> None:
    """Figures stay within their size, which is asserted there; `make bench` holds the times."""
    bench.build(tmp_path / "million.db")
    found = [time.name for time in bench.measure(tmp_path / "million.db")]
    assert len(found) >= len(bench.PAGES)
