"""What makes a line of a plot: the system (its name in a legend), the subject, the conditions."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.spec import OPTION_FLAGS

SUBJECT = ("model", "scope", "pass")
"""What a figure is about."""

CONDITIONS = ("num_text", "batch", "dtype", "layout", "logits", "zero", "world_size", "layer",
              "memory_cap", "weights")  # fmt: skip
"""What must be equal for two cells to be compared; the rest of a cell is its system and |V|."""

SIZED_OPTIONS = ("chunk", "checkpoint_every")
SYSTEM = ("attention", "kernel", *OPTION_FLAGS, *SIZED_OPTIONS)
"""The fields that ``series`` names."""

LINE = (*SUBJECT, *CONDITIONS, "series", "attention", "kernel", "source", "device")
"""The columns that are equal along one line."""

_FAMILIES = {"s": "S-Attn", "d": "D-Attn"}
_NAMES = {"himix": "HiMix"}


def attention_name(attention: str) -> str:
    """A system's published spelling: S-Attn, D-Attn, D-Attn sum, HiMix; else the word itself."""
    letter, found, rest = attention.partition("_attn")
    if found and letter in _FAMILIES and rest[:1] in ("", "_"):
        return " ".join([_FAMILIES[letter], *rest.split("_")[1:]])
    return _NAMES.get(attention, attention)


def series_name(row: Mapping[str, Any]) -> str:
    """A short name, stable across stores: system, kernel, then each option that is switched on."""
    words = [attention_name(str(row["attention"])), str(row["kernel"])]
    words += [flag.replace("_", " ") for flag in OPTION_FLAGS if row[flag]]
    for option in SIZED_OPTIONS:
        if not pd.isna(row[option]):
            words.append(f"{option.replace('_', ' ')} {int(row[option]):,}")
    return " · ".join(words)


def series_label(frame: pd.DataFrame) -> pd.Series:
    """``series_name`` of every row of a store's frame."""
    columns = list(SYSTEM)
    rows = frame[columns]
    distinct = rows.drop_duplicates()
    names = [series_name(dict(zip(columns, row, strict=True))) for row in distinct.to_numpy()]
    # None must match None: as words, every value of a field stays apart from every other.
    keys = [tuple(map(str, row)) for row in distinct.to_numpy()]
    lookup = dict(zip(keys, names, strict=True))
    found = [lookup[key] for key in zip(*(rows[c].map(str) for c in columns), strict=True)]
    return pd.Series(found, index=frame.index, dtype="str", name="series")


def with_series(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a column ``series``, where it has none yet."""
    return frame if "series" in frame else frame.assign(series=series_label(frame))
