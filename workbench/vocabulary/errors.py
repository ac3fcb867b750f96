"""The exceptions that the command line turns into one line and an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches

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


class Failure(RuntimeError):
    """The request was right, but the work could not be done: exit 1. The message says why."""


class Unsupported(RuntimeError):
    """The request is well-formed, but a part cannot serve it: a result (status ``unsupported``).

    The message names both sides, e.g. the kernel and the family's feature that it lacks.
    """


LONG_LIST = 10
"""Of more names than this only the near ones are told, where there are any."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> RequestError:
    """The error for a name that no registry holds: near names first, then all of them."""
    names = sorted(choices)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    all_names = f"known: {', '.join(names)}" if not near or len(names) <= LONG_LIST else ""
    return RequestError(f"{kind} {name!r} is unknown; {' '.join(filter(None, (hint, all_names)))}")
