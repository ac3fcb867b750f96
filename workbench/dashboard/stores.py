"""Which stores there are to look at, and reading one. No Streamlit here."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.vocabulary.errors import RequestError

SUFFIX = ".db"
MAX_DEPTH = 4
MAX_STORES = 200
MAX_TRACE_BYTES = 512 * 2**20
ENVIRONMENT_NAME = "WORKBENCH_STORE"


def stores_under(root: Path) -> list[str]:
    """Relative paths of the stores below ``root``, newest first; links are not followed.

    Hidden folders are left out, and the search ends ``MAX_DEPTH`` folders down.
    """
    names = sorted((-age, path.relative_to(root).as_posix()) for age, path in _walk(root))
    return [name for _, name in names[:MAX_STORES]]


def _walk(root: Path) -> Iterator[tuple[float, Path]]:
    """Modification time and path of each store."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        depth = len(here.relative_to(root).parts)
        keep = [] if depth >= MAX_DEPTH else [f for f in folders if not f.startswith(".")]
        folders[:] = sorted(keep)
        for name in files:
            path = here / name
            if name.endswith(SUFFIX):
                try:
                    facts = path.lstat()
                except FileNotFoundError:
                    continue  # Removed since the folder was listed.
                if stat.S_ISREG(facts.st_mode):
                    yield facts.st_mtime, path


def _real(path: Path) -> Path:
    """Where a path leads; ``resolve`` ends in an error of its own for a link to itself."""
    return Path(os.path.realpath(path))


def inside(root: Path, name: str) -> Path:
    """The file that a relative path from a URL names; RequestError where it leaves ``root``."""
    try:
        path = _real(root / name)
    except (OSError, ValueError):
        raise RequestError(f"store {name!r:.80}: not a path") from None
    if Path(name).is_absolute() or not path.is_relative_to(_real(root)):
        raise RequestError(f"store {name!r:.80}: outside the folder of the dashboard")
    return path


def named_store(arguments: Sequence[str], environment: str | None) -> Path | None:
    """The store of ``streamlit run app.py -- STORE``, else of the environment, else None."""
    words = [word for word in arguments if not word.startswith("-")]
    name = words[0] if words else environment
    return Path(name).expanduser() if name else None


def choices(root: Path, named: Path | None) -> dict[str, Path]:
    """What the picker offers: the name in the URL to the file. The named store comes first."""
    place = None if named is None else _real(named)
    if place is not None and place.is_dir():
        return {name: place / name for name in stores_under(place)}
    names = {name: root / name for name in stores_under(root)}
    if place is None:
        return names
    if place.is_relative_to(_real(root)):
        name = place.relative_to(_real(root)).as_posix()
        return {name: place, **names}
    # Outside the folder a store can be named on the command line only; its URL shows no folder.
    return {place.name: place, **{n: p for n, p in names.items() if n != place.name}}


def sibling_store(store: Path, name: str) -> Path:
    """The trace file of that bare name beside a store, or in a folder ``traces`` there.

    RequestError where there is none, where it is a link, or leads out of the folder.
    """
    folder = _real(store.parent)
    for path in (folder / name, folder / "traces" / name):
        inner = inside(folder, path.relative_to(folder).as_posix())
        if inner == path and path.is_file():
            if path.stat().st_size > MAX_TRACE_BYTES:
                raise RequestError(f"trace {name!r:.80}: too large to be sent from here")
            return path
    raise RequestError(f"trace {name!r:.80}: not in the store's folder, nor in traces/ there")
