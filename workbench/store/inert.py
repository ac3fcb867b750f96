"""Text from a store on its way into somebody else's program: nothing there runs or calls."""

import re
from typing import Any

_FORMULA = re.compile(r"[\t\r\n]|[\x00-\x20\u00a0\ufeff]*[=+\-@＝＋－＠]")
"""What a spreadsheet takes for a formula, also behind blanks and in full width."""
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
JOINER = "\u2060"
"""Word joiner: it takes no room, and ends what a renderer takes for an address."""


def inert(value: Any) -> Any:
    """A value of a CSV file that no spreadsheet runs: a text that it might run begins with ``'``.

    Numbers and other texts are as they were.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def unlinked(text: str) -> str:
    """``text`` in which no renderer of Markdown finds an address to make a link of.

    Renderers look for addresses after they have undone escapes, so these alone do not help.
    """
    return _ADDRESS.sub(JOINER, text)
