"""The exceptions that the command line turns into a line a fault and an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

MOST = 1_500
"""Characters of a fault: what a stranger's file says in it may be of any length."""
MOST_FAULTS = 20
"""Faults of a request that are told; of more the rest is counted."""


class RequestError(ValueError):
    """The request was wrong: exit 2. Each fault names the field, the value and what is right.

    ``faults`` has a line for each, which ``str`` joins and the command line prints below one
    another. One that quotes too much is cut in its middle.
    """

    def __init__(self, *faults: str) -> None:
        lines = [_cut(str(fault)) for fault in dict.fromkeys(faults)]
        more = len(lines) - MOST_FAULTS
        super().__init__(*lines[:MOST_FAULTS], *([f"and {more:,} more"] if more > 0 else []))

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return self.args

    def __str__(self) -> str:
        return "; ".join(self.faults)


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 3 :]}"


class WrongField(Exception):
    """A rule between fields reads one whose own value is wrong: the rule has nothing to say."""


class Faults:
    """What is wrong with a request, gathered so that all of it is told at once.

    A check in ``with faults:`` that raises RequestError adds its lines, and what follows is
    checked as well; one that needs a field that is wrong itself (WrongField) adds nothing. A part
    that cannot serve the request (Unsupported) is a result of a right one alone: beside a fault
    the faults are raised.
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
            raise RequestError(*self._lines)

    @property
    def lines(self) -> list[str]:
        """What is wrong, in the order in which it came."""
        return list(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, RequestError):
            self.add(*error.faults)
        elif isinstance(error, Unsupported):
            self.raise_all()
        return isinstance(error, (RequestError, WrongField))


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
