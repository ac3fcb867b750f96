"""Many metric rows and many readers."""

import asyncio
from pathlib import Path

import pytest

from tests.benchmarks import dashboard as bench
from tests.benchmarks import sessions
from tests.dashboard.test_pages import PAGES, WITHOUT_STORE


@pytest.mark.slow
def test_every_page_draws_a_million_metric_rows(tmp_path: Path) -> None:
    """Figures stay within their size, which is asserted there; `make bench` holds the times."""
    found = [time.name for time in bench.measure(bench.build_both(tmp_path))]
    assert len(found) == 2 * len(bench.PAGES) - len(WITHOUT_STORE)
    assert set(bench.PAGES) == set(PAGES)


@pytest.mark.slow
def test_fifty_readers_at_once_see_their_pages(stores: Path) -> None:
    """A page each; ``python -m tests.benchmarks.sessions STORE.db`` keeps them for a minute."""
    pages = tuple(page for page in bench.PAGES if page != sessions.PREDICTS)
    with sessions.serve(stores / "like_default.db") as port:
        visits = asyncio.run(sessions.visit(port, 50, 0.0, pages))
    assert visits.faults == ()
    assert visits.drawn == 50
