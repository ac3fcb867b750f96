"""What several folders of tests share: golden stores, built once a session; which are slow."""

from pathlib import Path

import pytest

from tests import golden

SLOW = Path(__file__).with_name("slow.txt")


def slow_names() -> list[str]:
    """The files and functions that ``slow.txt`` names."""
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``slow.txt`` names, and the folder of mutated inputs."""
    starts = tuple(start for name in slow_names() for start in (f"{name}[", f"{name}::"))
    names = set(slow_names())
    for item in items:
        if item.nodeid in names or item.nodeid.startswith(starts):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.startswith("tests/fuzz/"):
            item.add_marker(pytest.mark.fuzz)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in (*golden.CONTENTS, *golden.BROKEN):
        golden.build(folder / f"{kind}.db", kind)
    return folder
