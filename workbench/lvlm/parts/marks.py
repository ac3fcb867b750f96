"""Names for the regions of a layer: a probe may follow them; otherwise they cost nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.utils.checkpoint import noop_context_fn

Marker = Callable[[str], AbstractContextManager[object]]
_markers: list[Marker] = []


def region(name: str) -> AbstractContextManager[object]:
    """A block that computes the region of that name, ``V2V`` or ``MLP``.

    Not by context variable: backward, and the recomputation in it, run in threads of their own.
    """
    return _markers[-1](name) if _markers else nullcontext()


Watcher = Callable[[], AbstractContextManager[object]]
_watchers: list[Watcher] = []


def unmasked() -> AbstractContextManager[object]:
    """A block whose batched matmuls are no query-key pairs of a mask: routing, rankings, states.

    A counter of FLOPs takes every other batched matmul of a decoder for pairs, some of which
    causality hides. The mark holds for the block's backward and recomputation as well.
    """
    return _watchers[-1]() if _watchers else nullcontext()


def run_unmasked(module: Any, method: str) -> None:
    """Let every call of that method of a module be such a block."""
    inner = getattr(module, method)

    def run(*args: Any, **options: Any) -> Any:
        with unmasked():
            return inner(*args, **options)

    setattr(module, method, run)


Contexts = Callable[[], tuple[AbstractContextManager[object], AbstractContextManager[object]]]
_observers: list[Watcher] = []


def recomputation() -> Contexts:
    """What a checkpoint asks for the contexts of its forward and of the second one in backward."""
    if not _observers:
        return noop_context_fn
    observer = _observers[-1]
    return lambda: (nullcontext(), observer())


@contextmanager
def recomputed_by(observer: Watcher) -> Iterator[None]:
    """Inside, the second forward of every checkpoint is entered through ``observer``."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.pop()


@contextmanager
def unmasked_by(watcher: Watcher) -> Iterator[None]:
    """Inside, every ``unmasked`` block is entered through ``watcher``."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.pop()


@contextmanager
def marked_by(marker: Marker) -> Iterator[None]:
    """Inside, every region's block is entered through ``marker``."""
    _markers.append(marker)
    try:
        yield
    finally:
        _markers.pop()
