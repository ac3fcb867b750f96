"""The controls that pages share. Each keeps its value in the URL under its key."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from workbench.analysis import SUBJECT, Kinds, short_names
from workbench.dashboard.reading import Data
from workbench.telling.sentences import says
from workbench.telling.text import markdown
from workbench.telling.view import splitting, where
from workbench.vocabulary.cell import field_label

ORDER = {"scope": ("layer", "decoder", "lvlm"), "pass": ("forward", "train", "decode")}
FIRST = {"scope": ("decoder", "lvlm", "layer"), "pass": ("train", "forward", "decode")}
"""What a page opens with, the most telling first."""
NOTHING = -1
"""How much a place says of a card where nothing ran: less than a CPU's check."""
KEYS = {"num_text": "text"}
"""Names in the URL that differ from the column's; they follow the command line's options."""


def subject(store: Data, all_models: bool = False) -> pd.DataFrame:
    """The cells of one model, scope and pass under equal conditions, as picked in the sidebar,
    with their metrics.

    A control is drawn only where the store leaves a choice; with ``all_models`` none for those.
    """
    return store.whole(_picked(store.frame, store.kinds, all_models))


MANY = 8_000
"""Cells of which a page that shows all subjects together looks at one."""


def subject_of_many(frame: pd.DataFrame, combinations: Kinds) -> pd.DataFrame:
    """All rows where that is a matter of a moment, else those of one subject, as picked.

    ``combinations`` are the ``kinds_of`` the frame.
    """
    return frame if len(frame) <= MANY else _picked(frame, combinations, all_models=False)


def _picked(frame: pd.DataFrame, kinds: Kinds, all_models: bool) -> pd.DataFrame:
    rest = kinds.distinct
    for column in SUBJECT[all_models:]:
        rest = _pick(rest, column, always=True)
    for column in splitting(rest):
        rest = _pick(rest, column, always=False)
    return frame[np.isin(kinds.codes, rest.index)]


def _first(kinds: pd.DataFrame, column: str, values: Sequence[Any]) -> Any:
    """The value to open with: what ran before what did not, a card's cells before a CPU's, a whole
    model's before a layer's, a training step's before a prefill's.
    """
    if column not in ORDER:
        return values[0]
    places = zip(kinds["source"], kinds["device"], strict=True)
    words = [
        says(str(source), str(device)) if ran else NOTHING
        for (source, device), ran in zip(places, kinds["ran"], strict=True)
    ]
    ranks = kinds.assign(says=words)
    best = ranks.groupby(column, sort=False)["says"].max().to_dict()
    order = FIRST[column]
    return max(values, key=lambda value: (best[value], -order.index(value)))


def _pick(kinds: pd.DataFrame, column: str, always: bool) -> pd.DataFrame:
    counts = kinds.groupby(column, sort=False, dropna=False)["count"].sum()
    index = counts.sort_values(ascending=False, kind="stable").index
    values = [None if pd.isna(value) else value for value in index]
    if column in ORDER:
        values.sort(key=ORDER[column].index)
    names = {"none" if value is None else str(value): value for value in values}
    if len(names) < 2 and not always:
        return kinds
    key = KEYS.get(column, column)
    with st.sidebar:
        if column in ORDER and len(names) > 1:
            name = st.segmented_control(
                field_label(column),
                list(names),
                required=True,
                default=str(_first(kinds, column, values)),
                key=key,
                bind="query-params",
                width="stretch",
                format_func=markdown,
            )
        else:
            name = st.selectbox(field_label(column), list(names), key=key, bind="query-params")
    return where(kinds, {column: names[name]})


AT_ONCE = 24
"""Names that one figure can tell apart, and a browser carry."""


def several(
    label: str,
    options: Sequence[str],
    key: str,
    words: Callable[[str], str] = str,
    most: int = AT_ONCE,
) -> list[str]:
    """Pills of which the first ``most`` are on at first, as they are where the reader picks none:
    no figure is ever empty.

    Of very many options, a list to pick ``AT_ONCE`` from. ``words`` is how a pill names an option.
    """
    first = list(options[:most])
    if len(options) < 2:
        return first
    if len(options) > AT_ONCE:
        picked = st.multiselect(
            f"{label}, at most {AT_ONCE} of {len(options):,} at once",
            list(options),
            default=first,
            max_selections=AT_ONCE,
            key=key,
            bind="query-params",
        )
    else:
        picked = st.pills(
            label,
            list(options),
            selection_mode="multi",
            default=first,
            key=key,
            bind="query-params",
            format_func=lambda option: markdown(words(option)),
        )
    return list(picked or first)


def several_systems(names: Sequence[str], most: int = AT_ONCE) -> list[str]:
    """The systems to look at, by their short names; the first ``most`` where nobody picks."""
    return several("Systems", names, "systems", short_names(names).__getitem__, most)


def one(label: str, options: Sequence[str], key: str, **more: Any) -> str:
    """One of a few, the first one at first."""
    return str(
        st.segmented_control(
            label,
            list(options),
            default=options[0],
            required=True,
            key=key,
            bind="query-params",
            **more,
        )
    )
