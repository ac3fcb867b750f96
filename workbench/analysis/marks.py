"""What has to be known of a figure before it is believed: one word each, kept beside it.

A mark stands for a flag of the record, for its source or for its few samples. Figures of every
kind take the words from here, so that none stands without them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.vocabulary.record import FLAGS_OF_ALL, FLAGS_OF_TIME

FEW = 3
"""Samples up to which their number is told with the figure."""
LETTERS = {
    "emulated": "e",
    "smaller card emulated": "m",
    "cold": "c",
    "power-capped": "p",
    "throttled": "t",
    "shared card": "s",
    "host-bound": "h",
    "predicted": "*",
}
"""A mark in a table, whose note has the word."""
MEANING = {
    "emulated": "one rank of many ran on one card, and nothing was communicated",
    "smaller card emulated": "a larger card ran under a cap of its memory",
    "cold": "timed without a warm-up",
    "power-capped": "the card's power limit held its clock, as it does under large matmuls",
    "throttled": "the card slowed itself down",
    "shared card": "another process used the card",
    "host-bound": "the host's pace or other fixed costs: the seconds are not the method's",
    "predicted": "nothing ran",
}
_EMULATED = re.compile(r"emulated: .*?rank of (\d+); (\d+) of (\d+) layers")


def marks(row: Mapping[Any, Any], timed: bool = True) -> tuple[str, ...]:
    """The words of one record's figure; ``timed``: whether the figure depends on its seconds.

    ``row`` has ``flags`` and, for seconds, ``num_samples`` and perhaps ``host_bound``.
    """
    words = flag_words(row.get("flags"), timed)
    if timed and row.get("host_bound") and "host-bound" not in words:
        words.append("host-bound")
    count = row.get("num_samples")
    if timed and count is not None and not pd.isna(count) and 0 < count <= FEW:
        words.append(f"{int(count)} sample{'' if count == 1 else 's'}")
    return tuple(words)


def flag_words(flags: Any, timed: bool) -> list[str]:
    """The words of a record's flags, in the order of their weight."""
    names = {str(flag).partition(":")[0] for flag in flags} if _several(flags) else set()
    words = {**FLAGS_OF_ALL, **(FLAGS_OF_TIME if timed else {})}
    return [word for name, word in words.items() if name in names]


def _several(flags: Any) -> bool:
    return isinstance(flags, (tuple, list))


def together(every: Iterable[Sequence[str]]) -> str:
    """The marks of several records in one line: 'emulated, power-capped, 2 to 3 samples'."""
    words: dict[str, None] = {}
    counts: list[int] = []
    for marks in every:
        for word in marks:
            number, _, noun = word.partition(" ")
            if noun.startswith("sample"):
                counts.append(int(number))
            else:
                words[word] = None
    present = [word for word in LETTERS if word in words]
    if counts:
        low, high = min(counts), max(counts)
        present.append(
            f"{low} to {high} samples"
            if low != high
            else f"{high} sample{'' if high == 1 else 's'}"
        )
    return ", ".join(present)


def beside_emulation(every: Iterable[Sequence[str]]) -> list[str]:
    """The words of ``together`` but for 'emulated': how a cell was emulated is told apart."""
    return [word for word in together(every).split(", ") if word and word != "emulated"]


def letters(words: Sequence[str]) -> str:
    """Marks behind a figure in a table: ' (e, p, 3)'; empty without any."""
    short = [LETTERS.get(word, word.partition(" ")[0]) for word in words]
    return f" ({', '.join(short)})" if short else ""


def legend(every: Iterable[Sequence[str]], where: str = "In parentheses") -> str:
    """What the letters of a table mean and where they stand, a sentence; empty without any."""
    distinct = {word for marks in every for word in marks}
    words = [f"{LETTERS[word]}: {word}, {MEANING[word]}" for word in LETTERS if word in distinct]
    counts = {word.split()[0] for word in distinct if word.partition(" ")[2].startswith("sample")}
    if counts:
        words.append(f"{', '.join(sorted(counts))}: timed only so many times")
    return f"{where}: {'; '.join(words)}." if words else ""


def emulation(every: Iterable[Any]) -> str:
    """'1 of 32 ranks, 2 or 4 of 32 layers, nothing communicated', of the flags of several records;
    empty where none is emulated.
    """
    emulated: dict[tuple[str, str], set[int]] = {}
    for flags in every:
        for flag in flags if _several(flags) else ():
            if match := _EMULATED.match(str(flag)):
                emulated.setdefault((match[1], match[3]), set()).add(int(match[2]))
    words = []
    for (ranks, layers), ran in emulated.items():
        counts = " or ".join(map(str, sorted(ran)))
        some = "all layers" if ran == {int(layers)} else f"{counts} of {layers} layers"
        words.append(f"1 of {ranks} ranks, {some}, nothing communicated")
    return "; ".join(words)
