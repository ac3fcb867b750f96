"""What several folders of tests share: golden stores, built once a session."""

from pathlib import Path

import pytest

from tests import golden


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in (*golden.CONTENTS, *golden.BROKEN):
        golden.build(folder / f"{kind}.db", kind)
    return folder
