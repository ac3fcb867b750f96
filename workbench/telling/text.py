"""Text from a store made safe for Markdown, and small words that sentences need."""

import re
from collections.abc import Sequence

from workbench.store.inert import unlinked

_SPECIAL = re.compile(
    r"[\\`*{}\[\]<>#!|~$&@]"  # code, emphasis, links, HTML, tables, mathematics, mentions
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # s_attn is safe as it is
    r"|:(?![ 0-9])|(?<=\bwww)\."  # addresses that become links by themselves, :emoji:
    r"|^[-+=]|(?<=^[0-9])[.)](?= )"  # lists and underlines
)
_BACKSLASH = set("`*[]|_")
"""Escaped by a backslash, which reads better; an entity is what no renderer takes for markup."""


def markdown(text: object) -> str:
    """``text`` as Markdown that shows exactly it: no markup, HTML, link or second table cell.

    An address holds an invisible joiner, so that it stays text in every renderer.
    Ordinary names come through as they are, so that the source of a report stays readable.
    """
    line = unlinked(" ".join(str(text).split()))
    return _SPECIAL.sub(_escaped, line)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return f"\\{character}" if character in _BACKSLASH else f"&#{ord(character)};"


def listed(words: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def apart(sentence: str) -> tuple[str, str]:
    """'It is so (as measured on a card).' as 'It is so.' and 'as measured on a card'; the second
    is empty for a sentence that does not end so.
    """
    match = re.fullmatch(r"(.*) \(([^()]*)\)\.", sentence)
    return (sentence, "") if match is None else (f"{match[1]}.", match[2])


def unbroken(text: str) -> str:
    """``text`` for a heading or a slide: 'S-Attn' does not end a line at its hyphen."""
    return _SYSTEM.sub("\\1\u2011Attn", text)


_SYSTEM = re.compile(r"\b([SD])-Attn\b")
