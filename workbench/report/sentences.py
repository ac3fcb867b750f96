"""The headline in words and tables, computed from the frame; what is missing is said."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis import CONDITIONS, SUBJECT, Samples, headline, kinds, limits
from workbench.figures import in_order, quantity
from workbench.report.text import listed

Row = Mapping[str, Any]
Rows = tuple[tuple[str, ...], ...]
Pair = Mapping[str, Row]
"""A system with a baseline: rows of ``analysis.headline`` by metric."""

HEADLINE_METRICS = ("time_s", "peak_bytes", "flops")
BASELINES = {"eager": "S-Attn with the eager kernel", "fused": "S-Attn with a fused kernel"}
AGAINST = ("system", "against", "at |V|", "s/it", "baseline's s/it", "times as fast",
           "times less memory", "times fewer FLOPs")  # fmt: skip
NEEDED = (*SUBJECT, *CONDITIONS, "series", "attention", "kernel", "source", "device", "run",
          "key", "status", "num_visual", "num_samples", *HEADLINE_METRICS)  # fmt: skip
"""What the comparison reads: a narrow frame is much quicker to take apart."""
SAME = 0.005
"""Ratios this close to 1 are called the same."""


RAN = {"measured": "ran", "predicted": "fit"}
"""What a cell of status ok did: nothing predicted ever ran."""


def place(source: str, device: str) -> str:
    """'measured on cpu', 'predicted for h100-80gb'."""
    return f"{source} {'on' if source == 'measured' else 'for'} {device}"


def places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Every (source, device) of the frame, measured first."""
    rows = kinds(frame, ("source", "device")).distinct.itertuples(index=False)
    return sorted((str(source), str(device)) for source, device in rows)


def at_place(frame: pd.DataFrame, source: str, device: str) -> pd.DataFrame:
    """The rows of one source and device."""
    return frame[(frame["source"] == source) & (frame["device"] == device)]


def pairs(frame: pd.DataFrame, samples: Samples) -> list[Pair]:
    """Each system with each baseline: rows of ``analysis.headline`` by metric, legend order."""
    table = headline(frame[list(NEEDED)], samples=samples)
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in table.to_dict("records"):
        facts = {str(name): value for name, value in row.items()}
        key = (row["source"], row["device"], row["series"], row["baseline"])
        found.setdefault(key, {})[row["metric"]] = facts
    order = in_order(frame)
    keys = sorted(found, key=lambda key: (*key[:2], order.index(key[2]), key[3]))
    return [found[key] for key in keys]


def pairs_at(found: Sequence[Pair], source: str, device: str) -> list[Pair]:
    """The pairs of one source and device."""
    return [
        pair for pair in found
        if (pair["time_s"]["source"], pair["time_s"]["device"]) == (source, device)
    ]  # fmt: skip


def reach_columns(source: str) -> tuple[str, ...]:
    """The columns of ``reach_rows``."""
    return ("system", "cells", f"largest |V| that {RAN[source]}", "out of memory at")


def reach_rows(rows: pd.DataFrame) -> Rows:
    """How far each system of one place went."""
    order = in_order(rows)
    table = sorted(limits(rows).to_dict("records"), key=lambda row: order.index(row["series"]))
    return tuple(
        (row["series"], f"{row['num_cells']:,}", _count(row["max_visual"], "none"),
         _count(row["fails_at"], "not reached"))
        for row in table
    )  # fmt: skip


def against_rows(found: Sequence[Pair]) -> Rows:
    """Each system against each baseline; the columns are ``AGAINST``."""
    return tuple(
        (pair["time_s"]["series"], pair["time_s"]["baseline_series"],
         _count(pair["time_s"]["num_visual"], "none in common"),
         quantity(pair["time_s"]["value"], "s"), quantity(pair["time_s"]["baseline_value"], "s"),
         times(pair["time_s"]), times(pair["peak_bytes"]), times(pair["flops"]))
        for pair in found
    )  # fmt: skip


def _count(value: Any, missing: str) -> str:
    return missing if pd.isna(value) else f"{int(value):,}"


def times(row: Row) -> str:
    """'1.98× (1.90 to 2.07)'."""
    if pd.isna(row["ratio"]):
        return "n/a"
    if pd.isna(row["ratio_low"]):
        return f"{ratio_words(row['ratio'])}×"
    ends = f"{ratio_words(row['ratio_low'])} to {ratio_words(row['ratio_high'])}"
    return f"{ratio_words(row['ratio'])}× ({ends})"


def reach_ratio(row: Row, baseline_ended: bool) -> str:
    """How many times as many visual tokens fit: 'at least 2.00×' where the sweep ended first."""
    if pd.isna(row["visual_ratio"]):
        return "n/a"
    if not baseline_ended:
        return "not told"
    bound = "at least " if pd.isna(row["fails_at"]) else ""
    return f"{bound}{ratio_words(row['visual_ratio'])}×"


def ratio_words(ratio: float) -> str:
    """Three digits of a ratio: 1.00, 37.1, 251."""
    return f"{ratio:,.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def answers(frame: pd.DataFrame, both: Sequence[Pair]) -> list[str]:
    """What a frame of one subject says of its systems, place by place, in sentences.

    ``both`` are its ``pairs``.
    """
    found: list[str] = []
    for source, device in places(frame):
        rows = at_place(frame, source, device)
        here = pairs_at(both, source, device)
        found += compared(rows, here, place(source, device))
        found.append(reached(rows, place(source, device)))
    return found


def compared(rows: pd.DataFrame, found: Sequence[Pair], where: str) -> Iterator[str]:
    """Every system but S-Attn against each baseline, and which of these is missing."""
    candidates = [name for name in in_order(rows) if (
        rows.loc[rows["series"] == name, "attention"] != "s_attn").all()]  # fmt: skip
    if not candidates:
        yield f"There is no system besides S-Attn here ({where}), so nothing is compared."
    held = {pair["time_s"]["baseline"] for pair in found}
    lacking = [words for name, words in BASELINES.items() if name not in held]
    if candidates and lacking:
        yield f"Not compared against {listed(lacking, 'or')}: no such cell ran ({where})."
    for pair in found:
        if pair["time_s"]["series"] in candidates:
            yield _pair(pair, where)


def _pair(pair: Pair, where: str) -> str:
    time = pair["time_s"]
    system, baseline = time["series"], time["baseline_series"]
    if pd.isna(time["num_visual"]):
        return (
            f"{system} and {baseline} share no |V| at which both {RAN[time['source']]} ({where})."
        )
    costs = [
        _amount(
            pair["peak_bytes"], "less peak memory", "more peak memory", "the same peak memory"
        ),
        _amount(pair["flops"], "fewer FLOPs", "more FLOPs", "the same FLOPs"),
    ]
    known = listed([cost for cost in costs if cost])
    also = f", with {known}" if known else ""
    seconds = f"{quantity(time['value'], 's')} against {quantity(time['baseline_value'], 's')}"
    crosses = (
        "" if pd.isna(time["crosses_at"])
        else f"; by the fitted curves it is the faster one from |V| = {time['crosses_at']:,.0f} on"
    )  # fmt: skip
    return (f"At |V| = {time['num_visual']:,}, the largest that both {RAN[time['source']]},"
            f" {system} is {_speed(time)} {baseline} ({seconds}){also}{crosses}"
            f" ({where}{_certainty(time)}).")  # fmt: skip


def _speed(row: Row) -> str:
    """'1.98× as fast as', or that the samples do not say which is faster."""
    if not pd.isna(row["ratio_low"]) and row["ratio_low"] <= 1 <= row["ratio_high"]:
        return f"as fast as far as the samples tell, {times(row)}, as"
    return f"{times(row)} as fast as"


def _amount(row: Row, less: str, more: str, same: str) -> str:
    """'1.20× less peak memory', 'the same FLOPs'; empty if not known."""
    ratio = row["ratio"]
    if pd.isna(ratio):
        return ""
    if abs(ratio - 1) < SAME:
        return same
    return f"{ratio_words(ratio)}× {less}" if ratio > 1 else f"{ratio_words(1 / ratio)}× {more}"


def _certainty(row: Row) -> str:
    if row["source"] == "predicted" or pd.isna(row["num_samples"]):
        return ""
    counts = sorted({int(row["num_samples"]), int(row["baseline_num_samples"])})
    how = f"medians of {' and '.join(map(str, counts))} samples"
    how = "one sample of each" if counts == [1] else how
    if pd.isna(row["ratio_low"]):
        return f", {how}, too few for an interval"
    return f", {how} with the 95 % interval of their ratio"


def reached(rows: pd.DataFrame, where: str) -> str:
    """Who met the memory's end and who did not."""
    order = in_order(rows)
    table = sorted(limits(rows).to_dict("records"), key=lambda row: order.index(row["series"]))
    ended = [f"{row['series']} at |V| = {row['fails_at']:,}" for row in table
             if not pd.isna(row["fails_at"])]  # fmt: skip
    if not ended:
        top = rows.loc[rows["status"] == "ok", "num_visual"].max()
        reach = "" if pd.isna(top) else f" up to |V| = {int(top):,}, where this sweep ends"
        return f"No system ran out of memory{reach} ({where})."
    reached: dict[int, list[str]] = {}
    for row in table:
        if pd.isna(row["fails_at"]) and not pd.isna(row["max_visual"]):
            reached.setdefault(int(row["max_visual"]), []).append(row["series"])
    still = RAN[str(rows["source"].iloc[0])]
    rest = "".join(
        f"; {listed(names)} still {still} at |V| = {top:,}" for top, names in reached.items()
    )
    return f"Out of memory: {listed(ended)}{rest} ({where})."
