"""Each system against S-Attn, eager and fastest fused: reach, and ratios at equal |V|."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from workbench.analysis.fits import EXACT, Fit, fit_curve
from workbench.analysis.host_bound import without_host_bound
from workbench.analysis.series import CONDITIONS, SUBJECT, SYSTEM, group_codes, kinds, with_series
from workbench.vocabulary.record import Status
from workbench.vocabulary.stats import median_ratio

BASELINE, EAGER = "s_attn", "eager"
METRICS = ("time_s", "peak_bytes", "flops")
OF_ONE = ("attention", "kernel", "fold", "chunk", "skip_last", "settings")
"""What a baseline need not share with a system: S-Attn has none of these options."""
SHARED = tuple(name for name in SYSTEM if name not in OF_ONE)
NEAR = 2.0
"""The factor within which a |V| is near the one that is asked for."""

RecordId = tuple[str, str, str, str]
"""(run, key, source, device)."""
Columns = dict[str, np.ndarray]


class Samples(Protocol):
    """Seconds of a cell; a mapping does, or what looks them up one by one."""

    def get(self, key: RecordId, default: Sequence[float], /) -> Sequence[float]:
        """The samples of a cell, ``default`` where there are none."""
        ...


_IDENTITY = ("run", "key", "source", "device")
_READ = ("series", "num_visual", "status", "num_samples", "time_s")
_GROUP = (*SUBJECT, *CONDITIONS, "source", "device")
COLUMNS = [
    *_GROUP,
    "series",
    "attention",
    "kernel",
    "max_visual",
    "fails_at",
    "baseline",
    "baseline_series",
    "baseline_max_visual",
    "baseline_fails_at",
    "furthest_series",
    "visual_ratio",
    "metric",
    "size",
    "num_visual",
    "value",
    "baseline_value",
    "ratio",
    "ratio_low",
    "ratio_high",
    "num_samples",
    "baseline_num_samples",
    "flags",
    "baseline_flags",
    "crosses_at",
    "won",
    "lost",
    "waits",
]


class Turns(NamedTuple):
    """Every |V| that a system and its baseline were both timed at, by who took less time."""

    won: tuple[int, ...]
    lost: tuple[int, ...]
    waits: tuple[int, ...]
    """Every |V| of these at which the host set the pace of one system or both."""


def headline(
    frame: pd.DataFrame,
    metrics: Sequence[str] = METRICS,
    samples: Samples | None = None,
    near: int | None = None,
) -> pd.DataFrame:
    """Rows for each system, baseline (``eager``, ``fused``) and metric, within one subject, set
    of conditions, source and device.

    One row has ``size`` ``largest``: the largest |V| at which both have seconds, or the metric
    where neither is timed. With ``near``, another has ``near``: the |V| in common closest to that
    one, within a factor of two, where it is not the largest. ``value`` and ``baseline_value`` are
    those at ``num_visual``; ``ratio`` is baseline over system: how many times less the system
    needs. ``samples`` give the ratio of seconds its 95 % interval.

    The fused baseline is at every |V| the S-Attn kernel other than eager that is fastest there
    (``baseline_series``), of those with the system's own options where there are such.
    ``max_visual`` is the largest |V| that ran, ``baseline_max_visual`` the largest under any of
    the baseline's kernels (``furthest_series``), and ``visual_ratio`` one over the other; where
    ``fails_at`` is missing, the sweep ended before the memory did. ``won`` and ``lost`` are the
    |V| at which system and baseline were both timed, and which of them took less; ``waits`` are
    those that the host held up. From ``crosses_at`` on, the system's fitted
    curve is below the baseline's; missing where the curves do not cross within the |V| of both.

    Seconds of cells whose card waited for the host (``host_bound``) make no ratio and no curve:
    the |V| compared is then one at which both tell of their method. ``won`` and ``lost`` keep
    them.
    """
    rows = with_series(frame)
    # A single layer has no logits, so a difference in that option is none there.
    logits = rows["logits"].where(rows["scope"] != "layer", "all")
    rows = rows.assign(logits=logits, raw_s=rows["time_s"])
    rows = without_host_bound(rows, [*metrics, "time_s"]).reset_index(drop=True)
    lines: list[dict[str, Any]] = []
    for _, group in rows.groupby(group_codes(rows, _GROUP)):
        lines += _group(group, metrics, samples or {}, near)
    table = pd.DataFrame(lines, columns=COLUMNS)
    whole = ("max_visual", "fails_at", "baseline_max_visual", "baseline_fails_at", "num_visual")
    real = ("visual_ratio", "ratio", "ratio_low", "ratio_high", "crosses_at")
    return table.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64"))


def _group(
    group: pd.DataFrame, metrics: Sequence[str], samples: Samples, near: int | None
) -> list[dict[str, Any]]:
    # As arrays: pandas would take longer to pick the rows apart than all of the arithmetic.
    names = (*_IDENTITY, *_READ, *metrics, "raw_s", *(["flags"] if "flags" in group else []))
    columns = {name: group[name].to_numpy() for name in names}
    codes, distinct, _ = kinds(group, ("series", "attention", "kernel", *SHARED))
    systems = [
        _System(
            str(line["series"]),
            str(line["attention"]),
            str(line["kernel"]),
            tuple(None if pd.isna(line[name]) else line[name] for name in SHARED),
            _taken(columns, codes == code),
        )
        for code, line in enumerate(distinct.to_dict("records"))
    ]
    plain = [s for s in systems if s.attention == BASELINE]
    baselines: dict[tuple[str, tuple[Any, ...]], _System | None] = {}
    rows = []
    place = {name: group[name].iloc[0] for name in _GROUP}
    for system in systems:
        if system.reach is None:
            continue
        for name in ("eager", "fused"):
            if (name, system.shared) not in baselines:
                alike = [s for s in plain if (s.kernel == EAGER) == (name == "eager")]
                baselines[name, system.shared] = _best(alike, system.shared)
            baseline = baselines[name, system.shared]
            if baseline is None or baseline.names == {system.series}:
                continue
            if system.series in baseline.names and not _compares(system, baseline, metrics):
                continue
            facts: dict[str, Any] = {
                **place,
                "series": system.series,
                "attention": system.attention,
                "kernel": system.kernel,
                "max_visual": system.reach,
                "fails_at": system.fails_at,
                "baseline": name,
                "baseline_max_visual": baseline.reach,
                "baseline_fails_at": baseline.fails_at,
                "furthest_series": baseline.furthest,
                "visual_ratio": _over(system.reach, baseline.reach),
                **_turns(system, baseline)._asdict(),
            }
            for size, at in _sizes(system, baseline, near).items():
                rows += [
                    {**facts, "size": size, **_against(system, baseline, m, at, samples)}
                    for m in metrics
                ]
    return rows


def _best(alike: Sequence["_System"], shared: tuple[Any, ...]) -> "_System | None":
    """At every |V| the row of the fastest of some systems: of those with equal options, if any."""
    own = [s for s in alike if s.shared == shared] or list(alike)
    if len(own) < 2:
        return own[0] if own else None
    rows = {name: np.concatenate([s.rows[name] for s in own]) for name in own[0].rows}
    fits = rows["status"] == Status.OK.value
    seconds = np.where(pd.isna(rows["time_s"]), np.inf, rows["time_s"].astype(float))
    # What ran before what did not, then the fastest; the last of equals is the newest.
    newest = -np.arange(len(fits))
    order = np.lexsort((newest, seconds, ~fits, rows["num_visual"]))
    _, first = np.unique(rows["num_visual"][order], return_index=True)
    names = {s.series for s in own}
    columns = _taken(rows, order[first])
    return _System(f"{min(names)} and others", BASELINE, "fused", shared, columns, names)


def _taken(columns: Columns, which: np.ndarray) -> Columns:
    return {name: values[which] for name, values in columns.items()}


class _System:
    """The rows of one system within a group, as columns; or of several, the best at each |V|."""

    def __init__(
        self,
        series: str,
        attention: str,
        kernel: str,
        shared: tuple[Any, ...],
        rows: Columns,
        names: Iterable[str] = (),
    ) -> None:
        self.series, self.attention, self.kernel, self.shared = series, attention, kernel, shared
        self.names = set(names) or {series}
        self.rows = rows
        self._curves: dict[str, tuple[Fit, float, float] | None] = {}
        self._places: dict[str, dict[int, int]] = {}
        self.ran = _taken(rows, rows["status"] == Status.OK.value)
        at = self.ran["num_visual"]
        self.reach = int(at.max()) if len(at) else None
        self.furthest = str(self.ran["series"][at.argmax()]) if len(at) else series
        beyond = rows["num_visual"][rows["status"] == Status.OOM.value]
        beyond = beyond[beyond > (-1 if self.reach is None else self.reach)]
        self.fails_at = int(beyond.min()) if len(beyond) else None

    def places(self, metric: str) -> dict[int, int]:
        """The place in ``ran`` of the row that tells ``metric`` at each |V|: the latest."""
        if metric not in self._places:
            rows = np.flatnonzero(~pd.isna(self.ran[metric]))
            at = self.ran["num_visual"][rows]
            self._places[metric] = dict(zip(at.tolist(), rows.tolist(), strict=True))
        return self._places[metric]

    def curve(self, metric: str) -> tuple[Fit, float, float] | None:
        """The fit of every value, also those predicted beyond the memory, and its range of |V|."""
        if metric not in self._curves:
            self._curves[metric] = self._fitted(metric)
        return self._curves[metric]

    def _fitted(self, metric: str) -> tuple[Fit, float, float] | None:
        present = ~pd.isna(self.rows[metric])
        at = self.rows["num_visual"][present]
        if len(np.unique(at)) < 3:
            return None
        return fit_curve(at, self.rows[metric][present]), float(at.min()), float(at.max())


def _shared_sizes(system: _System, baseline: _System, metric: str) -> list[int]:
    """Every |V| at which both have a metric, and which are not one and the same record."""
    ours, theirs = system.places(metric), baseline.places(metric)
    return sorted(
        at
        for at in ours.keys() & theirs.keys()
        if baseline.ran["series"][theirs[at]] != system.series
    )


def _compares(system: _System, baseline: _System, metrics: Sequence[str]) -> bool:
    """Whether one kernel of S-Attn has a |V| at which another is the baseline."""
    return any(_shared_sizes(system, baseline, metric) for metric in metrics)


def _sizes(system: _System, baseline: _System, near: int | None) -> dict[str, int | None]:
    """``largest`` and perhaps ``near`` to the |V| compared; None where each metric has its own."""
    shared = _shared_sizes(system, baseline, "time_s")
    if not shared:
        return {"largest": None}
    sizes: dict[str, int | None] = {}
    if near:
        best = min(shared, key=lambda at: max(at / near, near / max(at, 1)))
        if best != shared[-1] and max(best / near, near / max(best, 1)) <= NEAR:
            sizes["near"] = best
    return {**sizes, "largest": shared[-1]}


def _turns(system: _System, baseline: _System) -> Turns:
    """Who took less time where; seconds of the host included."""
    ours, theirs = system.places("raw_s"), baseline.places("raw_s")
    won: list[int] = []
    losses: list[int] = []
    shared = _shared_sizes(system, baseline, "raw_s")
    own, base = system.places("time_s"), baseline.places("time_s")
    for at in shared:
        faster = system.ran["raw_s"][ours[at]] < baseline.ran["raw_s"][theirs[at]]
        (won if faster else losses).append(at)
    waits = tuple(at for at in shared if at not in own or at not in base)
    return Turns(tuple(won), tuple(losses), waits)


def _against(
    system: _System, baseline: _System, metric: str, at: int | None, samples: Samples
) -> dict[str, Any]:
    """The comparison at one |V|; without one, at the largest at which both have the metric."""
    facts: dict[str, Any] = {
        "metric": metric,
        "baseline_series": baseline.furthest,
        "crosses_at": _crossing(system, baseline, metric),
    }
    if at is None:
        at = max(_shared_sizes(system, baseline, metric), default=None)
    ours, theirs = system.places(metric), baseline.places(metric)
    if at is None or at not in ours or at not in theirs:
        return facts
    own, base = _row(system.ran, ours[at]), _row(baseline.ran, theirs[at])
    facts |= {
        "baseline_series": base["series"],
        "num_visual": at,
        "value": own[metric],
        "baseline_value": base[metric],
        "ratio": _over(base[metric], own[metric]),
        "num_samples": own["num_samples"],
        "baseline_num_samples": base["num_samples"],
        "flags": own.get("flags", ()),
        "baseline_flags": base.get("flags", ()),
    }
    if metric == "time_s":
        timed = [samples.get(_identity(row), ()) for row in (base, own)]
        facts |= _interval(*timed)
    return facts


def _interval(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float | None]:
    """The 95 % interval of the ratio of seconds, where both have samples."""
    if not theirs or not ours:
        return {}
    _, low, high = median_ratio(theirs, ours)
    return {"ratio_low": low, "ratio_high": high}


def _row(columns: Columns, place: int) -> dict[str, Any]:
    return {name: values[place] for name, values in columns.items()}


def _identity(row: dict[str, Any]) -> RecordId:
    run, key, source, device = (str(row[name]) for name in _IDENTITY)
    return run, key, source, device


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else float(a) / float(b)


def _crossing(system: _System, baseline: _System, metric: str) -> float | None:
    """The |V| from which on the system's curve is the lower one, within the range of both.

    None unless the bands of the two curves are apart at both ends, in opposite order.
    """
    ours, theirs = system.curve(metric), baseline.curve(metric)
    if ours is None or theirs is None:
        return None
    ends = [max(ours[1], theirs[1]), min(ours[2], theirs[2])]
    our_low, our_high = ours[0].band(ends)
    their_low, their_high = theirs[0].band(ends)
    # The bands of exact counts have no width; only rounding keeps equal ones apart.
    if not (our_low[0] > their_high[0] * (1 + EXACT) and our_high[1] < their_low[1] * (1 - EXACT)):
        return None
    difference = Polynomial(_terms(ours[0])) - Polynomial(_terms(theirs[0]))
    roots = [complex(root) for root in difference.roots()]
    # Above at one end and below at the other, a parabola passes zero once in between.
    return next(root.real for root in roots if ends[0] <= root.real <= ends[1])


def _terms(fit: Fit) -> list[float]:
    return [term for term in fit.terms if term is not None]
