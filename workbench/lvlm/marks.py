"""Names for the parts of an iteration: a probe may follow them; otherwise they cost nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Marker = Callable[[str], AbstractContextManager[object]]
_markers: list[Marker] = []


def part(name: str) -> AbstractContextManager[object]:
    """A block that computes the part of that name, ``V2V`` or ``MLP``.

    Not by context variable: backward, and the recomputation in it, run in threads of their own.
    """
    return _markers[-1](name) if _markers else nullcontext()


@contextmanager
def marked_by(marker: Marker) -> Iterator[None]:
    """Inside, every part's block is entered through ``marker``."""
    _markers.append(marker)
    try:
        yield
    finally:
        _markers.pop()
