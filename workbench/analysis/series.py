"""What makes a line of a plot: the system (its name in a legend), the subject, the conditions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.vocabulary.cell import FIELDS, fields_with, value_type
from workbench.vocabulary.systems import KINDS, label

SUBJECT = fields_with("subject")
"""What a figure is about."""

SYSTEM = fields_with("system")
"""The fields that ``series`` names."""
_OPTIONS = sorted(
    (name for name in SYSTEM if name not in ("attention", "kernel")),
    key=lambda name: (bool, int, str).index(value_type(name)),
)

CONDITIONS = fields_with("condition")
"""What must be equal for two cells to be compared; the rest of a cell is its system and |V|."""

LINE = (*SUBJECT, *CONDITIONS, "series", "attention", "kernel", "source", "device")
"""The columns that are equal along one line."""

_TEXT = pd.StringDtype("python", na_value=np.nan)
"""As a store's frame has it: of such text the analysis takes rows in half the time."""


def attention_name(attention: str) -> str:
    """A system's published spelling: S-Attn, D-Attn, D-Attn sum, HiMix; else the word itself."""
    return label("attention", attention)


def series_name(row: Mapping[str, Any]) -> str:
    """A short name, stable across stores: system, kernel, then each option that is switched on."""
    words = [attention_name(str(row["attention"])), str(row["kernel"])]
    for name in _OPTIONS:
        value = row[name]
        if pd.isna(value) or value == FIELDS[name].default:
            continue
        words.append(_option_words(name, value))
    return " · ".join(words)


def _option_words(name: str, value: Any) -> str:
    """A system's option in the name of its line: 'fold', 'chunk 1,024', a reducer's label."""
    kind = value_type(name)
    if kind is bool:
        return name.replace("_", " ")
    if kind is int:
        return f"{name.replace('_', ' ')} {int(value):,}"
    return label(name, str(value)) if name in KINDS else str(value)


def series_label(frame: pd.DataFrame) -> pd.Series:
    """``series_name`` of every row of a store's frame."""
    systems = kinds(frame, SYSTEM)
    rows = systems.distinct.to_dict("records")
    names = pd.Series([series_name(row) for row in rows], dtype=_TEXT)  # type: ignore[arg-type]
    return names.take(systems.codes).set_axis(frame.index).rename("series")


def systems_of(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(series, attention, kernel) of each series of the frame, in order of appearance."""
    codes, names = pd.factorize(frame["series"].to_numpy())
    _, first = np.unique(codes, return_index=True)
    attentions, kernels = (frame[name].array[first] for name in ("attention", "kernel"))
    return list(zip(map(str, names), attentions, kernels, strict=True))


class Kinds(NamedTuple):
    """The different combinations of some columns of a frame."""

    codes: np.ndarray
    """The kind of each row: a label of ``distinct``."""
    distinct: pd.DataFrame
    """The columns' values, a row a kind, in order of appearance."""
    counts: np.ndarray
    """The rows of each kind."""


def kinds(frame: pd.DataFrame, columns: Sequence[str]) -> Kinds:
    """The kinds of a frame's rows, told apart by ``columns`` as ``group_codes`` does."""
    codes = group_codes(frame, columns)
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    # Column by column: rows of a table are taken after a copy of all of it.
    distinct = {column: frame[column].array[first] for column in columns}
    return Kinds(codes, pd.DataFrame(distinct), counts)


def group_codes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """A number from 0 for each different combination of the columns, in order of appearance.

    What is missing equals what is missing. pandas' own groupby takes twenty times as long.
    """
    codes, span = np.zeros(len(frame), dtype=np.int64), 1
    for column in columns:
        values = frame[column].to_numpy()
        # Most columns hold one value, and to count that one is quick.
        if not len(values) or (listed := values.tolist()).count(listed[0]) == len(listed):
            continue
        codes_of, distinct = pd.factorize(values)
        span *= len(distinct) + 1
        if span > _MOST:
            codes, groups = pd.factorize(codes)
            span = len(groups) * (len(distinct) + 1)
        codes = codes * (len(distinct) + 1) + codes_of + 1
    return pd.factorize(codes)[0]


_MOST = 2**62
"""What an integer of 64 bits can tell apart, with room."""


def with_series(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a column ``series``, where it has none yet."""
    return frame if "series" in frame else frame.assign(series=series_label(frame))


def common_options(names: Sequence[str]) -> tuple[str, ...]:
    """The options that every one of several series names ends in: what a caption says once."""
    apart = [name.split(" · ") for name in dict.fromkeys(names)]
    if len(apart) < 2:
        return ()
    return tuple(word for word in apart[0][2:] if all(word in rest[2:] for rest in apart))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each series to its name without the options that all of them have."""
    common = set(common_options(names))
    shortened = {}
    for name in dict.fromkeys(names):
        words = name.split(" · ")
        shortened[name] = " · ".join([*words[:2], *(w for w in words[2:] if w not in common)])
    return shortened
