"""The headline in words and tables, computed from the frame; what is missing is said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis import (
    CONDITIONS,
    SUBJECT,
    Samples,
    common_options,
    emulation,
    headline,
    kinds,
    limits,
    marks,
    short_names,
    systems_of,
    together,
)
from workbench.analysis.headline import SHARED
from workbench.figures import in_order, quantity
from workbench.telling.published import S_ATTN
from workbench.telling.text import listed

Row = Mapping[str, Any]
Rows = tuple[tuple[str, ...], ...]
Pair = Mapping[str, Row]
"""A system with a baseline at one |V|: rows of ``analysis.headline`` by metric."""

HEADLINE_METRICS = ("time_s", "peak_bytes", "flops")
BASELINES = {"eager": "S-Attn with the eager kernel", "fused": "S-Attn with a fused kernel"}
IN_TURNS = {"eager": "eager S-Attn", "fused": "the fastest fused S-Attn"}
"""A baseline over several |V|, whose kernel may change from one to the next."""
AGAINST = (
    "system",
    "against",
    "at |V|",
    "times as fast",
    "s/it",
    "baseline's s/it",
    "times less memory",
    "times fewer FLOPs",
    "marks",
)
NEEDED = (
    *SUBJECT,
    *CONDITIONS,
    "series",
    "attention",
    "kernel",
    *SHARED,
    "source",
    "device",
    "run",
    "key",
    "status",
    "num_visual",
    "num_samples",
    "flags",
    "busy_share",
    *HEADLINE_METRICS,
)
"""What the comparison reads: a narrow frame is much quicker to take apart."""
SAME = 0.005
"""Ratios this close to 1 are called the same."""


RAN = {"measured": "ran", "predicted": "fit"}
"""What a cell of status ok did: nothing predicted ever ran."""


def place(source: str, device: str) -> str:
    """'measured on NVIDIA H200', 'predicted for h100-80gb', 'measured on cpu, a check'."""
    check = ", a check" if says(source, device) == 0 else ""
    return f"{source} {'on' if source == 'measured' else 'for'} {device}{check}"


def places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Every (source, device) of the frame: measured on a card, predicted, measured on a CPU."""
    rows = kinds(frame, ("source", "device")).distinct.itertuples(index=False)
    places = [(str(source), str(device)) for source, device in rows]
    return sorted(places, key=lambda each: (-says(*each), *each))


def says(source: str, device: str) -> int:
    """How much a place says of a card: 2 where one was measured, 0 for a CPU's check."""
    if source == "predicted":
        return 1
    return 0 if device == "cpu" else 2


def at_place(frame: pd.DataFrame, source: str, device: str) -> pd.DataFrame:
    """The rows of one source and device."""
    return frame[(frame["source"] == source) & (frame["device"] == device)]


def pairs(frame: pd.DataFrame, samples: Samples) -> list[Pair]:
    """Each system with each baseline, near the paper's |V| and at the largest: rows of
    ``analysis.headline`` by metric, in the order of the legend.
    """
    needed = [name for name in NEEDED if name in frame]
    table = headline(frame[needed], samples=samples, near=S_ATTN.max_visual)
    pairs: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in table.to_dict("records"):
        facts = {str(name): value for name, value in row.items()}
        key = (row["source"], row["device"], row["series"], row["baseline"], row["size"])
        pairs.setdefault(key, {})[row["metric"]] = facts
    order = in_order(frame)
    sizes = ("near", "largest")
    keys = sorted(
        pairs, key=lambda key: (*key[:2], order.index(key[2]), key[3], sizes.index(key[4]))
    )
    return [pairs[key] for key in keys]


def pairs_at(pairs: Sequence[Pair], source: str, device: str) -> list[Pair]:
    """The pairs of one source and device."""
    return [
        pair
        for pair in pairs
        if (pair["time_s"]["source"], pair["time_s"]["device"]) == (source, device)
    ]


def reach_columns(source: str) -> tuple[str, ...]:
    """The columns of ``reach_rows``."""
    return ("system", "cells", f"largest |V| that {RAN[source]}", "out of memory at", "marks")


def shared_options(names: Sequence[str]) -> str:
    """', all with checkpoint': what the short names of these series leave out; empty for none."""
    common = common_options(names)
    return f", all with {listed(common)}" if common else ""


def reach_rows(rows: pd.DataFrame) -> Rows:
    """How far each system of one place went, under short names."""
    order = in_order(rows)
    short = short_names(order)
    table = sorted(limits(rows).to_dict("records"), key=lambda row: order.index(row["series"]))
    return tuple(
        (
            short[row["series"]],
            f"{row['num_cells']:,}",
            _count(row["max_visual"], "none"),
            _count(row["fails_at"], "not reached"),
            together(marks({"flags": own}, timed=False) for own in _ends(rows, [row])["flags"]),
        )
        for row in table
    )


def against_rows(pairs: Sequence[Pair], short: Mapping[str, str] | None = None) -> Rows:
    """Each system against each baseline; the columns are ``AGAINST``. ``short``: names to use."""
    names = short or {}
    return tuple(
        (
            names.get(pair["time_s"]["series"], pair["time_s"]["series"]),
            names.get(pair["time_s"]["baseline_series"], pair["time_s"]["baseline_series"]),
            _count(pair["time_s"]["num_visual"], "none in common"),
            ratio_text(pair["time_s"]),
            quantity(pair["time_s"]["value"], "s"),
            quantity(pair["time_s"]["baseline_value"], "s"),
            ratio_text(pair["peak_bytes"]),
            ratio_text(pair["flops"]),
            pair_marks(pair),
        )
        for pair in pairs
    )


def _count(value: Any, missing: str) -> str:
    return missing if pd.isna(value) else f"{int(value):,}"


def ratio_text(row: Row) -> str:
    """'1.98× (1.90 to 2.07)'."""
    if pd.isna(row["ratio"]):
        return "n/a"
    if pd.isna(row["ratio_low"]):
        return f"{ratio_words(row['ratio'])}×"
    ends = f"{ratio_words(row['ratio_low'])} to {ratio_words(row['ratio_high'])}"
    return f"{ratio_words(row['ratio'])}× ({ends})"


def ratio_words(ratio: float) -> str:
    """Three digits of a ratio: 1.00, 37.1, 251."""
    return f"{ratio:,.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def both_marks(pair: Pair) -> list[tuple[str, ...]]:
    """The marks of the system's seconds and of the baseline's."""
    row = pair["time_s"]
    if pd.isna(row["num_visual"]):
        return []
    own = {"flags": row["flags"], "num_samples": row["num_samples"]}
    base = {"flags": row["baseline_flags"], "num_samples": row["baseline_num_samples"]}
    return [marks(own), marks(base)]


def pair_marks(pair: Pair) -> str:
    """The marks of both in one line: 'emulated, power-capped, 2 to 3 samples'."""
    return together(both_marks(pair))


def answers(frame: pd.DataFrame, both: Sequence[Pair]) -> list[str]:
    """What a frame of one subject says of its systems, place by place, in sentences.

    ``both`` are its ``pairs``.
    """
    sentences: list[str] = []
    for source, device in places(frame):
        rows = at_place(frame, source, device)
        here = pairs_at(both, source, device)
        sentences += compared(rows, here, place(source, device))
        sentences.append(reached(rows, place(source, device)))
    return sentences


def compared(rows: pd.DataFrame, pairs: Sequence[Pair], where: str) -> Iterator[str]:
    """Every system but S-Attn against each baseline, and which of these is missing."""
    candidates = challengers(rows)
    if not candidates:
        yield f"There is no system besides S-Attn here ({where}), so nothing is compared."
    baselines = {pair["time_s"]["baseline"] for pair in pairs}
    lacking = [words for name, words in BASELINES.items() if name not in baselines]
    if candidates and lacking:
        yield f"Not compared against {listed(lacking, 'or')}: no such cell ran ({where})."
    for pair in pairs:
        row = pair["time_s"]
        if row["series"] in candidates:
            yield _pair(pair, where)
            turns = turning(row) if row["size"] == "largest" else ""
            if turns:
                yield f"{turns} ({where})."


def challengers(rows: pd.DataFrame) -> list[str]:
    """The series of systems other than S-Attn, in the order of the legend."""
    plain = {series for series, attention, _ in systems_of(rows) if attention == "s_attn"}
    return [name for name in in_order(rows) if name not in plain]


def turning(row: Row) -> str:
    """Who is faster at which |V| of those that both have seconds of.

    Empty for fewer than two, and where the host set the pace at each: ``no_ratio`` tells that.
    """
    system, baseline = row["series"], IN_TURNS[row["baseline"]]
    won, losing = row["won"], row["lost"]
    if len(won) + len(losing) < 2 or {*won, *losing} <= {*row["waits"]}:
        return ""
    if not losing or not won:
        first, last = min(won + losing), max(won + losing)
        better, other = (system, baseline) if won else (baseline, system)
        words = f"{better} is faster than {other} at every |V| in common, {first:,} to {last:,}"
    elif max(losing) < min(won):
        words = f"{baseline} is faster up to |V| = {max(losing):,}, {system} from {min(won):,} on"
    elif max(won) < min(losing):
        words = f"{system} is faster up to |V| = {max(won):,}, {baseline} from {min(losing):,} on"
    else:
        words = f"{system} is faster at |V| = {_sizes(won)}, {baseline} at {_sizes(losing)}"
    return words[0].upper() + words[1:] + _waiting(row["waits"])


def _waiting(waits: Sequence[int]) -> str:
    return f"; at {_sizes(waits)} the host set the pace of one or both" if waits else ""


def _sizes(sizes: Sequence[int]) -> str:
    """'256, 1,024 and 4,096'; of many their number and ends."""
    if len(sizes) <= MOST_SIZES:
        return listed([f"{size:,}" for size in sizes])
    return f"{len(sizes):,} sizes from {min(sizes):,} to {max(sizes):,}"


MOST_SIZES = 4


def _pair(pair: Pair, where: str) -> str:
    time = pair["time_s"]
    system, baseline = time["series"], time["baseline_series"]
    if pd.isna(time["ratio"]):
        return f"{no_ratio(time)} ({where})."
    costs = [
        amount_words(
            pair["peak_bytes"], "less peak memory", "more peak memory", "the same peak memory"
        ),
        amount_words(pair["flops"], "fewer FLOPs", "more FLOPs", "the same FLOPs"),
    ]
    changes = listed([cost for cost in costs if cost])
    also = f", with {changes}" if changes else ""
    seconds = f"{quantity(time['value'], 's')} against {quantity(time['baseline_value'], 's')}"
    fastest = ", the fastest fused" if time["baseline"] == "fused" else ""
    largest = (
        f", the largest that both {RAN[time['source']]}," if time["size"] == "largest" else ","
    )
    return (
        f"At |V| = {time['num_visual']:,}{largest}"
        f" {system} is {_speed(time)} {baseline}{fastest} ({seconds}){also}"
        f" ({where}{_certainty(pair)})."
    )


def no_ratio(time: Row) -> str:
    """Why a system and a baseline have no ratio of seconds."""
    system, baseline = time["series"], time["baseline_series"]
    timed = sorted((*time["won"], *time["lost"]))
    if timed:
        return (
            f"{system} and {IN_TURNS[time['baseline']]} were both timed at |V| = {_sizes(timed)},"
            " where the host set the pace, so no ratio is formed"
        )
    return f"{system} and {baseline} share no |V| at which both {RAN[time['source']]}"


def _speed(row: Row) -> str:
    """'1.98× as fast as', or that the samples do not say which is faster."""
    if not pd.isna(row["ratio_low"]) and row["ratio_low"] <= 1 <= row["ratio_high"]:
        return f"as fast as far as the samples tell, {ratio_text(row)}, as"
    return f"{ratio_text(row)} as fast as"


def amount_words(row: Row, less: str, more: str, same: str) -> str:
    """'1.20× less peak memory', 'the same FLOPs'; empty if not known."""
    ratio = row["ratio"]
    if pd.isna(ratio):
        return ""
    if abs(ratio - 1) < SAME:
        return same
    return f"{ratio_words(ratio)}× {less}" if ratio > 1 else f"{ratio_words(1 / ratio)}× {more}"


def _certainty(pair: Pair) -> str:
    row = pair["time_s"]
    words = [word for word in pair_marks(pair).split(", ") if word and "sample" not in word]
    marked = "".join(f", {word}" for word in words)
    if row["source"] == "predicted" or pd.isna(row["num_samples"]):
        return marked
    counts = sorted({int(row["num_samples"]), int(row["baseline_num_samples"])})
    how = f"medians of {' and '.join(map(str, counts))} samples"
    how = "one sample of each" if counts == [1] else how
    if pd.isna(row["ratio_low"]):
        return f"{marked}, {how}, too few for an interval"
    return f"{marked}, {how} with the 95 % interval of their ratio"


def emulated(rows: pd.DataFrame) -> str:
    """', emulated: 1 of 32 ranks, 2 of 32 layers, …' where a row is; else empty."""
    words = emulation(rows["flags"])
    return f", emulated: {words}" if words else ""


def reached(rows: pd.DataFrame, where: str) -> str:
    """Who met the memory's end and who did not."""
    order = in_order(rows)
    brackets = limits(rows)[["series", "max_visual", "fails_at"]].to_dict("records")
    table = sorted(brackets, key=lambda row: order.index(row["series"]))
    thresholds = [
        f"{row['series']} at |V| = {row['fails_at']:,}"
        for row in table
        if not pd.isna(row["fails_at"])
    ]
    if not thresholds:
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
    return f"Out of memory: {listed(thresholds)}{rest} ({where}{emulated(_ends(rows, table))})."


def _ends(rows: pd.DataFrame, table: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """The flags of the cells that a system's reach stands on."""
    ends = {
        (row["series"], at)
        for row in table
        for at in (row["max_visual"], row["fails_at"])
        if not pd.isna(at)
    }
    return of_points(rows, ends)[["flags"]]


def of_points(rows: pd.DataFrame, points: Collection[tuple[str, int]]) -> pd.DataFrame:
    """The rows of some (series, |V|)."""
    # The sizes first: numbers are quick to look up, and leave few rows to look at one by one.
    near = rows[rows["num_visual"].isin({size for _, size in points})]
    pairs_of = zip(near["series"], near["num_visual"], strict=True)
    return near.loc[[pair in points for pair in pairs_of]]
