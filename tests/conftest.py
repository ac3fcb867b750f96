"""What several folders of tests share, made once a session: golden stores, a worker; the slow."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import golden
from workbench.probe.workers.client import Client

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Each worker has its share of the cores, and so have the processes that its tests start: teams
    # of all cores in every worker wait for one another. Read when torch is imported.
    share = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

SLOW = Path(__file__).with_name("slow.txt")


def slow_names() -> dict[str, int]:
    """The files and functions that ``slow.txt`` names, and of how many cases one is quick.

    A line is a name, of which no case is quick (0), or a name and ``1/4``.
    """
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    named = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: int(share[0].removeprefix("1/")) if share else 0 for name, *share in named}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``slow.txt`` names, and the folder of mutated inputs; begin with Slurm.

    Its tests wait for minutes and work little: the other worker has all the rest meanwhile.
    """
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)
    named = slow_names()
    seen: Counter[str] = Counter()
    for item in items:
        function = item.nodeid.partition("[")[0]
        every = named.get(function, named.get(function.partition("::")[0]))
        if every is not None:
            if every == 0 or seen[function] % every:
                item.add_marker(pytest.mark.slow)
            seen[function] += 1
        if item.nodeid.startswith("tests/fuzz/"):
            item.add_marker(pytest.mark.fuzz)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in (*golden.CONTENTS, *golden.BROKEN):
        golden.build(folder / f"{kind}.db", kind)
    return folder


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """One worker for the tests that need no fresh one: it imports torch once."""
    with Client() as opened:
        yield opened
