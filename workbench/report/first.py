"""The first page of a report: the answer, what to do, a figure and six rows; then the rest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from workbench.analysis import legend, letters, limits, marks
from workbench.analysis.growth import growth
from workbench.analysis.host_bound import host_bound, without_host_bound
from workbench.analysis.marks import FEW
from workbench.figures import Axes, quantity, scaling
from workbench.report.question import Front
from workbench.telling import words
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Figure, FirstPage, Table
from workbench.telling.sentences import at_place, pairs_at, place, places, ratio_words
from workbench.telling.text import listed
from workbench.telling.verdict import Verdict, telling_systems
from workbench.vocabulary.metrics import METRICS as OF_METRIC
from workbench.vocabulary.systems import entry

FASTER = 1.05
"""A ratio from which on a system is recommended for its speed."""
MOST = 4
"""Systems of the table and of the figure."""
METRICS = ("time_s", "peak_bytes")
WIDTH = 800
"""Pixels of its figure as a file: it takes half of a page on paper."""


def first_page(
    material: Material, note: str = "", case: Table | None = None, front: Front | None = None
) -> FirstPage:
    """Of ``front``; without one of the subject that says most, at its first place."""
    subject = _subject(material) if front is None else front.subject
    source, device = places(subject.rows)[0] if front is None else (front.source, front.device)
    rows = at_place(subject.rows, source, device)
    verdict = Verdict(
        rows, pairs_at(subject.pairs, source, device), f"{subject.title}, {place(source, device)}"
    )
    names = _shown(rows, verdict) if front is None else front.names
    return FirstPage(
        answer=verdict.top(),
        basis=verdict.basis(),
        recommendation=tuple(_recommendation(verdict)),
        table=_table(rows, verdict, names) if front is None else front.table,
        figure=_own(front) or _figure(material, rows, names, _metrics(front)),
        facts=tuple(_facts(material, rows, source, device)),
        assumptions=tuple(_assumptions(rows, source)),
        risks=tuple(_risks(verdict, source)),
        note=note,
        case=case,
        chapter=subject.slug,
    )


def _own(front: Front | None) -> Figure | None:
    """The figure that a question brings along, as the first page's."""
    if front is None or front.figure is None:
        return None
    return replace(front.figure, slug="first", width=WIDTH)


def _metrics(front: Front | None) -> Sequence[str]:
    return METRICS if front is None else front.metrics


def _subject(material: Material) -> Subject:
    """The first subject that holds both S-Attn and another system, else the first."""
    both = (
        s
        for s in material.spoken
        if {True, False} <= {name == "s_attn" for name in s.rows["attention"]}
    )
    return next(both, material.spoken[0])


def _shown(rows: pd.DataFrame, verdict: Verdict) -> list[str]:
    """Eager, the fused kernel that was fastest, the system, and who went furthest of it."""
    fused = [
        p["time_s"]["baseline_series"] for p in verdict.pairs if p["time_s"]["baseline"] == "fused"
    ]
    order = telling_systems(rows)
    if fused:
        order = [order[0], fused[-1], *(name for name in order[1:] if name != fused[-1])]
    names = [name for name in order[:3] if name]
    if verdict.system and verdict.system not in names:
        names = [*names[:2], verdict.system]
    table = limits(rows)
    own = table[table["attention"] == _attention(rows, verdict.system)].dropna(
        subset=["max_visual", "fails_at"]
    )
    beyond = own.sort_values("max_visual")["series"].tolist()
    if beyond and beyond[-1] not in names:
        names.append(str(beyond[-1]))
    return list(dict.fromkeys(names))[:MOST]


def _attention(rows: pd.DataFrame, series: str | None) -> str:
    own = rows.loc[rows["series"] == series, "attention"]
    return str(own.iloc[0]) if len(own) else ""


def _recommendation(verdict: Verdict) -> Iterator[str]:
    """What to take, from which |V| on, and for how many tokens."""
    rows = {(p["time_s"]["baseline"], p["time_s"]["size"]): p["time_s"] for p in verdict.pairs}
    fused = rows.get(("fused", "largest")) or rows.get(("eager", "largest"))
    if verdict.system is None or fused is None or pd.isna(fused["ratio"]):
        yield "Nothing can be recommended: no system was timed beside S-Attn at one |V|."
        return
    name, base = verdict.name(verdict.system), verdict.name(fused["baseline_series"])
    won = [at for at in fused["won"] if not fused["lost"] or at > max(fused["lost"])]
    if fused["ratio"] >= FASTER and won:
        yield (
            f"Take {name} from |V| = {min(won):,} on: at {fused['num_visual']:,} it is"
            f" {ratio_words(fused['ratio'])}× as fast as {base}."
        )
        if fused["lost"]:
            yield f"Up to |V| = {max(fused['lost']):,} keep S-Attn."
        own = entry("attention", _attention(verdict.rows, verdict.system))
        if own is not None and own.loss:
            yield (
                f"On one condition: {own.label} gives up {own.loss};"
                " whether the model stays as good is not measured here."
            )
    else:
        yield (
            f"Keep {base}: at |V| = {fused['num_visual']:,} {name} is"
            f" {ratio_words(fused['ratio'])}× as fast."
        )
    if not pd.isna(fused["baseline_fails_at"]):
        table = limits(verdict.rows).dropna(subset=["max_visual"])
        beyond = table[
            (table["max_visual"] > fused["baseline_max_visual"]) & (table["attention"] != "s_attn")
        ].sort_values("max_visual")
        more = [
            f"{verdict.name(str(r['series']))} ({r['max_visual']:,}"
            f"{' or more' if pd.isna(r['fails_at']) else ''})"
            for r in beyond.to_dict("records")
        ]
        only = f"only {listed(more)} {'take' if len(more) > 1 else 'takes'} more"
        rest = only if more else "nothing takes more"
        yield (
            f"For memory: {verdict.name(fused['furthest_series'])} takes up to"
            f" {fused['baseline_max_visual']:,} visual tokens, and {rest}."
        )


def _table(rows: pd.DataFrame, verdict: Verdict, names: Sequence[str]) -> Table:
    """Six rows: reach, seconds at two sizes, memory, growth, MFU; a column a system."""
    timed = without_host_bound(rows, ["time_s", "mfu_causal", "mfu"])
    shared = [
        int(p["time_s"]["num_visual"]) for p in verdict.pairs if not pd.isna(p["time_s"]["ratio"])
    ]
    sizes = sorted(dict.fromkeys(shared))
    sizes = [sizes[0], sizes[-1]] if sizes else []
    bounds = {str(row["series"]): row for row in limits(rows).to_dict("records")}
    waited = rows.assign(host_bound=host_bound(rows))

    def each(tell: Callable[[str], str]) -> tuple[str, ...]:
        return tuple(tell(name) for name in names)

    def cell(frame: pd.DataFrame, name: str, at: int) -> pd.Series | None:
        own = frame[(frame["series"] == name) & (frame["num_visual"] == at)]
        return own.iloc[-1] if len(own) else None

    def reach(name: str) -> str:
        if name not in bounds or pd.isna(bounds[name]["max_visual"]):
            return "none"
        top = int(bounds[name]["max_visual"])
        has_failed = not pd.isna(bounds[name]["fails_at"])
        own = cell(rows, name, top)
        mark = letters(marks(own.to_dict(), timed=False)) if own is not None else ""
        return f"{top:,}{mark}" if has_failed else f"{top:,} or more{mark}"

    def amount(metric: str, unit: str, at: int) -> Callable[[str], str]:
        def tell(name: str) -> str:
            own = cell(waited, name, at)
            if own is None:
                failed = name in bounds and not pd.isna(bounds[name]["fails_at"])
                beyond = failed and at >= int(bounds[name]["fails_at"])
                return "out of memory" if beyond else "–"
            if pd.isna(own[metric]):
                return "out of memory" if own["status"] == "oom" else "–"
            text = quantity(own[metric], unit) + letters(marks(own.to_dict(), metric == "time_s"))
            return text if own["status"] == "ok" else f"{text}, does not fit"

        return tell

    def grows(name: str) -> str:
        own = timed[(timed["series"] == name) & timed["time_s"].notna()]
        step = growth(own["num_visual"].to_numpy(), own["time_s"].to_numpy())
        if step is None:
            return "–"
        ends = own[own["num_visual"].isin([step.low, step.high])].to_dict("records")
        marked = dict.fromkeys(word for row in ends for word in marks(row))
        return f"×{step.factor:.2f} ({step.low:,} to {step.high:,}){letters(list(marked))}"

    def mfu(name: str) -> str:
        own = cell(timed, name, sizes[-1]) if sizes else None
        if own is None or pd.isna(own["mfu_causal"]):
            return "–"
        dense = "" if pd.isna(own["mfu"]) else f" ({100 * own['mfu']:.0f} % dense)"
        return f"{100 * own['mfu_causal']:.0f} %{dense}{letters(marks(own.to_dict()))}"

    lines: list[tuple[str, ...]] = [("largest |V| that fits", *each(reach))]
    for at in dict.fromkeys(sizes):
        lines.append((f"an iteration, |V| = {at:,}", *each(amount("time_s", "s", at))))
    if sizes:
        peak = amount("peak_bytes", "B", sizes[0])
        lines.append((f"peak memory, |V| = {sizes[0]:,}", *each(peak)))
    lines.append(("time for 4× the tokens", *each(grows)))
    if sizes:
        lines.append((f"MFU by allowed pairs, |V| = {sizes[-1]:,}", *each(mfu)))
    marks_of = [marks(row) for row in waited[waited["series"].isin(names)].to_dict("records")]
    columns = ("", *(verdict.name(name) for name in names))
    note = f"{legend(marks_of)} ×4 is linear, ×16 quadratic.".strip()
    return Table("", columns, tuple(lines), note)


def _figure(
    material: Material, rows: pd.DataFrame, names: Sequence[str], metrics: Sequence[str]
) -> Any:
    """The metrics of the table's systems, over linear axes."""
    own = rows[rows["series"].isin(names)]
    curves = pd.DataFrame(
        columns=["series", "source", "device", "metric", "num_visual", "value", "low", "high"]
    )
    caption = [
        f"{words.setting(own)}.",
        *words.provenance(own),
        "Linear axes: at twice the |V| a straight line is twice as high, a parabola four times.",
    ]
    figure = drawn(
        "first",
        f"{listed([OF_METRIC[name].label for name in metrics])} over |V|",
        lambda theme: scaling(
            own,
            curves,
            material.looks,
            theme,
            metrics,
            Axes(False, False),
            material.capacities(own),
        ),
        caption,
    )
    return replace(figure, width=WIDTH)


def _facts(
    material: Material, rows: pd.DataFrame, source: str, device: str
) -> Iterator[tuple[str, str]]:
    """Hardware, software and dates."""
    yield "Hardware", device if source == "measured" else f"{device}, predicted: nothing ran"
    used = [run for run in material.runs if run.id in set(rows["run"])]
    versions = dict.fromkeys(
        f"torch {run.environment.torch}, transformers {run.environment.transformers}"
        for run in used
        if run.environment.torch
    )
    if versions:
        yield "Software", "; ".join(versions)
    dates = sorted({run.started_at[:10] for run in used if run.started_at})
    if dates:
        yield "Date", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _assumptions(rows: pd.DataFrame, source: str) -> Iterator[str]:
    yield f"{words.setting(rows)}."
    if source == "predicted":
        yield "Bytes are replayed from shapes; seconds are computed, not measured."
    if (rows["scope"] == "layer").any():
        yield "One layer: no embedding, LM head, loss or optimizer."
    yield from words.provenance(rows, bars=False)


def _risks(verdict: Verdict, source: str) -> Iterator[str]:
    system = entry("attention", _attention(verdict.rows, verdict.system))
    if system is not None and system.loss:
        yield f"What {system.label} costs in quality is not measured here."
    flags = {flag.partition(":")[0] for own in verdict.rows["flags"] for flag in own}
    if "emulated" in flags:
        yield "Nothing was communicated: collectives over a network would add to each iteration."
    if verdict.rows["num_samples"].between(1, FEW).any():
        cold = ", some of them cold" if "no_warmup" in flags else ""
        yield f"Few samples{cold}: ratios near 1 may turn."
    if source == "predicted" and "uncalibrated" in flags:
        yield "No measurement stands behind the seconds: they are lower bounds."
    yield "Another model, card, batch or number of text tokens has other figures."
