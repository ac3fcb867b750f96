"""The exceptions that the command line turns into one line and an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

MOST = 1_500
"""Characters of a message: what a stranger's file says in it may be of any length."""


class RequestError(ValueError):
    """The request was wrong: exit 2. The message names the field, the value and what is right.

    One that quotes too much is cut in its middle.
    """

    def __init__(self, message: str = "") -> None:
        text = str(message)
        if len(text) > MOST:
            text = f"{text[: MOST // 2]} … {text[-MOST // 3 :]}"
        super().__init__(text)


class Faults:
    """What is wrong with a request, gathered so that all of it is told at once.

    A check in ``with faults:`` that raises RequestError adds its line, and what follows is checked
    as well. A part that cannot serve the request (Unsupported) is a result of a right one alone:
    beside a fault the faults are raised.
    """

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, *lines: str) -> None:
        """Add lines; one that is there stays where it is."""
        self._lines |= dict.fromkeys(lines)

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._lines)

    def raise_all(self) -> None:
        """Raise RequestError with every line, in the order in which they came; none is fine."""
        if self._lines:
            raise RequestError("; ".join(self._lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, RequestError):
            self.add(str(error))
        elif isinstance(error, Unsupported):
            self.raise_all()
        return isinstance(error, RequestError)


class Failure(RuntimeError):
    """The request was right, but the work could not be done: exit 1. The message says why."""


class Unsupported(RuntimeError):
    """The request is well-formed, but a part cannot serve it: a result (status ``unsupported``).

    The message names both sides, e.g. the kernel and the family's feature that it lacks.
    """


LONG_LIST = 10
"""Of more names than this only the near ones are told; where none is near and there are twice as
many, so many of them."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> RequestError:
    """The error for a name that no registry holds: near names first, then all, or some of many."""
    names = sorted(choices)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    more = len(names) - LONG_LIST if len(names) > 2 * LONG_LIST else 0
    listed = ", ".join(names[:LONG_LIST] if more else names) + f" and {more} more" * bool(more)
    all_names = f"known: {listed}" if not near or len(names) <= LONG_LIST else ""
    return RequestError(f"{kind} {name!r} is unknown; {' '.join(filter(None, (hint, all_names)))}")
