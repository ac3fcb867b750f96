"""Store to the contents of a report: plain strings and figures, which the templates lay out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import yaml

from workbench.analysis import fit
from workbench.errors import Failure
from workbench.figures import DARK, LIGHT, SCALING_METRICS, Look, in_order, quantity, scaling
from workbench.report import words
from workbench.report.fits import fit_rows
from workbench.report.sentences import (
    AGAINST,
    RAN,
    against_rows,
    answers,
    at_place,
    pairs,
    pairs_at,
    place,
    places,
    reach_columns,
    reach_rows,
)  # fmt: skip
from workbench.report.view import (
    CAPACITIES,
    Details,
    all_looks,
    capacities,
    newest_of_each,
    prepared,
    subjects,
    where,
)  # fmt: skip
from workbench.store import RunInfo, Store

FILL = "workbench sweep probes/default.py --store {}"
MOST_ENDINGS = 200
"""Rows of the table of cells that did not run; beyond it only their number is told."""


class NothingToReport(Failure):
    """The store holds nothing to report. The message names the sweep that would fill it."""


@dataclass(frozen=True)
class Table:
    """A titled table of plain strings."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One subject: a figure over |V|, what it says, and its tables."""

    title: str
    slug: str
    answers: tuple[str, ...]
    figure: go.Figure
    dark: go.Figure
    """The same figure for a reader whose screen is dark."""
    caption: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Contents:
    """A whole report, but for its time stamp."""

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    failures: Table | None
    flags: Table | None
    conventions: Table
    environments: Table
    commands: tuple[str, ...]
    specs: Mapping[str, str] = field(default_factory=dict)
    """File name to YAML: the sweeps as they were run."""


def contents(path: Path) -> Contents:
    """Everything a report says. Raises NothingToReport, RequestError or StoreError."""
    with Store.open(path) as store:
        whole, runs = store.frame(details=CAPACITIES), store.runs()
    details = Details(path)
    if whole.empty:
        raise NothingToReport(f"{path}: no records yet; fill it with: {FILL.format(path)}")
    frame = newest_of_each(prepared(whole))
    if frame[list(SCALING_METRICS)].isna().all(axis=None):
        raise NothingToReport(
            f"{path}: {words.endings(frame)}, and no cell has a figure to report; once the cause"
            f" is removed, run the sweep again: {FILL.format(path)}"
        )
    looks = all_looks(frame)
    found = [(facts, where(frame, facts)) for facts in subjects(frame)]
    # A subject of which nothing ran has no figure; its cells are in the table of those.
    shown = [(f, rows) for f, rows in found if rows[list(SCALING_METRICS)].notna().any(axis=None)]
    titles = _titles([facts for facts, _ in shown])
    sections = tuple(
        _section(title, number, facts, rows, runs, looks, details)
        for number, (title, (facts, rows)) in enumerate(zip(titles, shown, strict=True), start=1)
    )
    used = [run for run in runs if run.num_records]
    specs = {
        f"{number:02d}-{_safe(run.id)}.yaml": _spec(run) for number, run in enumerate(used, 1)
    }
    return Contents(
        title="What does a visual token cost?",
        summary=_summary(path, frame, runs, sections),
        sections=sections,
        failures=_failures(frame),
        flags=_flags(frame),
        conventions=_conventions(),
        environments=_environments(runs),
        commands=tuple(f"workbench sweep {name} --store again.db" for name in specs),
        specs=specs,
    )


def _titles(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """'mistral-7b-v0.3 · layer · train', and what else tells one section from another."""
    varying = [key for key in facts[0] if len({str(f[key]) for f in facts}) > 1]
    more = [key for key in varying if key not in ("model", "scope", "pass")]
    return [
        " · ".join([f["model"], f["scope"], f["pass"], *(f"{key} {f[key]}" for key in more)])
        for f in facts
    ]


def _section(title: str, number: int, facts: dict[str, Any], rows: pd.DataFrame,
             runs: Sequence[RunInfo], looks: Mapping[str, Look],
             details: Details) -> Section:  # fmt: skip
    fits, curves = fit(rows, SCALING_METRICS)
    figure, dark = (
        scaling(rows, curves, looks, theme, capacities=capacities(rows, runs))
        for theme in (LIGHT, DARK)
    )
    banded = bool(curves["low"].notna().any())
    tables, compared = [], pairs(rows, details)
    for source, device in places(rows):
        here, name = at_place(rows, source, device), place(source, device)
        tables.append(
            Table(f"How far each system went, {name}", reach_columns(source), reach_rows(here))
        )
        against = against_rows(pairs_at(compared, source, device))
        if against:
            tables.append(Table(
                f"Against both S-Attn baselines, {name}", AGAINST, against,
                f"Baseline over system, at the largest |V| that both {RAN[source]}.",
            ))  # fmt: skip
    if len(fits):
        columns, cells = fit_rows(fits)
        tables.append(Table(
            "Fitted terms, y = a + b·|V| + c·|V|²", columns, cells,
            "Least squares weighted by 1/y²; in parentheses the 95 % interval. A predicted line"
            " has no noise: its interval says how well the form fits. The shape is the smallest"
            " that the points do not refute.",
        ))  # fmt: skip
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "scaling"
    return Section(
        title=title,
        slug=f"{number:02d}-{slug}",
        answers=tuple(answers(rows, compared)),
        figure=figure,
        dark=dark,
        caption=tuple(words.figure_caption(rows, SCALING_METRICS, banded)),
        tables=tuple(tables),
    )  # fmt: skip


def _summary(path: Path, frame: pd.DataFrame, runs: Sequence[RunInfo],
             sections: Sequence[Section]) -> tuple[str, ...]:  # fmt: skip
    systems = words.listed(in_order(frame))
    first = (f"{path.name} holds {words.plural(len(frame), 'cell')} of"
             f" {words.plural(frame['series'].nunique(), 'system')} ({systems}):"
             f" {words.endings(frame)}.")  # fmt: skip
    sources = set(frame["source"])
    missing = []
    if "measured" not in sources:
        missing.append("Nothing here was measured: every number is a prediction from shapes and"
                       " datasheet peaks.")  # fmt: skip
    if "predicted" not in sources:
        missing.append("Nothing here was predicted: there are no figures for a device that was not"
                       " at hand.")  # fmt: skip
    used = frame["run"].nunique()
    if used > 1:
        missing.append(f"The cells come from {used} runs; where two hold the same cell the newer"
                       " counts. Their environments are listed below.")  # fmt: skip
    return (first, *missing)


def _failures(frame: pd.DataFrame) -> Table | None:
    rows = frame[frame["status"] != "ok"].sort_values(
        ["status", "source", "device", "model", "pass", "series", "num_visual"]
    )
    if rows.empty:
        return None
    shown = [
        (row["status"], row["source"], row["device"], row["model"], row["scope"], row["pass"],
         row["series"], f"{row['num_visual']:,}", _reason(row))
        for row in rows.head(MOST_ENDINGS).to_dict("records")
    ]  # fmt: skip
    rest = len(rows) - len(shown)
    return Table(
        "Cells that did not run, or would not",
        ("status", "source", "device", "model", "scope", "pass", "system", "|V|", "reason"),
        tuple(shown), f"And {rest:,} more." if rest else "",
    )  # fmt: skip


def _reason(row: Mapping[Any, Any]) -> str:
    if row["error"] is not None and not pd.isna(row["error"]):
        return str(row["error"])[:300]
    if row["status"] == "oom" and row["source"] == "predicted":
        return f"needs {quantity(row['peak_bytes'], 'B')}"
    return ""


def _flags(frame: pd.DataFrame) -> Table | None:
    counts = Counter(flag for flags in frame["flags"] for flag in flags)
    if not counts:
        return None
    rows = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MOST_ENDINGS]
    return Table("Quality flags", ("cells", "flag"), tuple((f"{n:,}", flag) for flag, n in rows))


def _conventions() -> Table:
    names = (*SCALING_METRICS, "flops_causal", "model_flops", "time_q1_s", "num_samples", "mfu")
    return Table(
        "Conventions", ("metric", "unit", "what it means"), tuple(words.conventions(names))
    )


def _environments(runs: Sequence[RunInfo]) -> Table:
    facts = [run.environment.model_dump() for run in runs]
    names = [name for name in dict.fromkeys(key for each in facts for key in each)
             if any(each.get(name) is not None for each in facts)]  # fmt: skip
    rows = [
        ("records", *(f"{run.num_records:,}" for run in runs)),
        ("sweep", *(run.sweep for run in runs)),
        ("begun", *(run.started_at for run in runs)),
    ]
    rows += [(name, *(_fact(name, each.get(name)) for each in facts)) for name in names]
    return Table("Environment", ("fact", *(run.id for run in runs)), tuple(rows))


def _fact(name: str, value: Any) -> str:
    if value is None:
        return "n/a"
    return quantity(value, "B") if name.endswith("_bytes") else str(value)


def _safe(name: str) -> str:
    """A name from a store as part of a file's name and of a shell command."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]


def _spec(run: RunInfo) -> str:
    return str(yaml.safe_dump(run.spec, sort_keys=False, allow_unicode=True))
