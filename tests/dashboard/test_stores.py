"""Which stores the picker offers, and that no link leads out of the folder."""

import os
from pathlib import Path

import pytest

from workbench.dashboard.stores import choices, inside, named_store, stores_under
from workbench.vocabulary.errors import RequestError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for place, age in (
        ("old.db", 30),
        ("new.db", 10),
        ("runs/a/deep.db", 20),
        (".hidden/x.db", 0),
        ("a/b/c/d/e/too-deep.db", 0),
        ("notes.txt", 0),
    ):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "outside.db").touch()
    (root / "link.db").symlink_to(tmp_path / "outside.db")
    return root


def test_stores_newest_first_without_links_and_hidden_folders(root: Path) -> None:
    assert stores_under(root) == ["new.db", "runs/a/deep.db", "old.db"]


@pytest.mark.parametrize("name", ["new.db", "runs/a/deep.db", "runs/../old.db", "not-there.db"])
def test_paths_inside_are_taken(root: Path, name: str) -> None:
    assert inside(root, name) == (root / name).resolve()


@pytest.mark.parametrize(
    "name",
    ["../outside.db", "link.db", "/etc/passwd", "runs/../../outside.db", "a\0b", "~/x.db/.."],
)
def test_paths_that_lead_out_are_refused(root: Path, name: str) -> None:
    if name == "~/x.db/..":
        assert inside(root, name) == root.resolve() / "~"
        return
    with pytest.raises(RequestError):
        inside(root, name)


def test_the_named_store_comes_first(root: Path) -> None:
    assert list(choices(root, root / "old.db")) == ["old.db", "new.db", "runs/a/deep.db"]


def test_a_store_outside_can_be_named_but_shows_no_folder(root: Path) -> None:
    found = choices(root, root.parent / "outside.db")
    assert next(iter(found)) == "outside.db"
    assert found["outside.db"] == (root.parent / "outside.db").resolve()


def test_a_folder_can_be_named(root: Path) -> None:
    assert choices(Path("/"), root / "runs") == {"a/deep.db": root / "runs/a/deep.db"}


@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        ([], None, None),
        (["x.db"], "y.db", "x.db"),
        ([], "y.db", "y.db"),
        (["--flag", "x.db"], None, "x.db"),
    ],
)
def test_the_command_line_goes_before_the_environment(
    arguments: list[str], environment: str | None, found: str | None
) -> None:
    assert named_store(arguments, environment) == (None if found is None else Path(found))
