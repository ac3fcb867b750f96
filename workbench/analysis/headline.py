"""Each system against both S-Attn baselines, eager and best fused: reach, ratios at equal |V|."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from workbench.analysis.fits import EXACT, Fit, fit_curve
from workbench.analysis.host_bound import without_host_bound
from workbench.analysis.series import CONDITIONS, SUBJECT, group_codes, kinds, with_series
from workbench.record import Status
from workbench.stats import median_ratio

BASELINE, EAGER = "s_attn", "eager"
METRICS = ("time_s", "peak_bytes", "flops")

Identity = tuple[str, str, str, str]
"""(run, key, source, device)."""
Columns = dict[str, np.ndarray]


class Samples(Protocol):
    """Seconds of a cell; a mapping does, or what looks them up one by one."""

    def get(self, key: Identity, default: Sequence[float], /) -> Sequence[float]:
        """The samples of a cell, ``default`` where there are none."""
        ...


_IDENTITY = ("run", "key", "source", "device")
_READ = ("num_visual", "status", "num_samples", "time_s")
_GROUP = (*SUBJECT, *CONDITIONS, "source", "device")
COLUMNS = [
    *_GROUP, "series", "attention", "kernel", "max_visual", "fails_at", "baseline",
    "baseline_series", "baseline_max_visual", "visual_ratio", "metric", "num_visual", "value",
    "baseline_value", "ratio", "ratio_low", "ratio_high", "num_samples", "baseline_num_samples",
    "crosses_at",
]  # fmt: skip


def headline(
    frame: pd.DataFrame, metrics: Sequence[str] = METRICS, samples: Samples | None = None
) -> pd.DataFrame:
    """One row for each system, baseline (``eager``, ``fused``) and metric, within one subject, set
    of conditions, source and device.

    ``max_visual`` is the largest |V| that ran and ``visual_ratio`` that of the system over that
    of the baseline; where ``fails_at`` is missing, the sweep ended before the memory did.
    ``value`` and ``baseline_value`` are those at ``num_visual``, the largest |V| that both ran;
    ``ratio`` is baseline over system: how many times less the system needs. ``samples`` give the
    ratio of seconds its 95 % interval. From ``crosses_at`` on, the system's fitted curve is below
    the baseline's; missing where the curves do not cross within the |V| of both.

    Seconds of cells whose card waited for the host (flag ``host_bound``) are left out: the |V|
    compared is then one at which both tell of their method.

    The fused baseline is the S-Attn kernel other than eager that reaches furthest, and of those
    the fastest.
    """
    rows = without_host_bound(with_series(frame), [*metrics, "time_s"])
    # A single layer has no logits, so a difference in that option is none there.
    logits = rows["logits"].where(rows["scope"] != "layer", "all")
    found: list[dict[str, Any]] = []
    rows = rows.assign(logits=logits).reset_index(drop=True)
    for _, group in rows.groupby(group_codes(rows, _GROUP)):
        found += _group(group, metrics, samples or {})
    table = pd.DataFrame(found, columns=COLUMNS)
    whole = ("max_visual", "fails_at", "baseline_max_visual", "num_visual")
    real = ("visual_ratio", "ratio", "ratio_low", "ratio_high", "crosses_at")
    return table.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64"))


def _group(group: pd.DataFrame, metrics: Sequence[str], samples: Samples) -> list[dict[str, Any]]:
    # As arrays: pandas would take longer to pick the rows apart than all of the arithmetic.
    names = (*_IDENTITY, *_READ, *metrics)
    columns = {name: group[name].to_numpy() for name in names}
    codes, distinct, _ = kinds(group, ("series", "attention", "kernel"))
    systems = [
        _System(str(series), str(attention), str(kernel), _taken(columns, codes == code))
        for code, (series, attention, kernel) in enumerate(distinct.itertuples(index=False))
    ]
    plain = [s for s in systems if s.attention == BASELINE]
    eager = [s for s in plain if s.kernel == EAGER]
    fused = [s for s in plain if s.kernel != EAGER]
    baselines = {
        "eager": min(eager, key=_System.rank, default=None),
        "fused": min(fused, key=_System.rank, default=None),
    }
    found = []
    place = {name: group[name].iloc[0] for name in _GROUP}
    for system in systems:
        for name, baseline in baselines.items():
            if baseline is None or baseline is system or system.reach is None:
                continue
            facts: dict[str, Any] = {
                **place,
                "series": system.series,
                "attention": system.attention,
                "kernel": system.kernel,
                "max_visual": system.reach,
                "fails_at": system.fails_at,
                "baseline": name,
                "baseline_series": baseline.series,
                "baseline_max_visual": baseline.reach,
                "visual_ratio": _over(system.reach, baseline.reach),
            }
            found += [{**facts, **_against(system, baseline, m, samples)} for m in metrics]
    return found


def _taken(columns: Columns, which: np.ndarray) -> Columns:
    return {name: values[which] for name, values in columns.items()}


class _System:
    """The rows of one system within a group, as columns."""

    def __init__(self, series: str, attention: str, kernel: str, rows: Columns) -> None:
        self.series, self.attention, self.kernel = series, attention, kernel
        self.rows = rows
        self._curves: dict[str, tuple[Fit, float, float] | None] = {}
        self._places: dict[str, dict[int, int]] = {}
        self.ran = _taken(rows, rows["status"] == Status.OK.value)
        at = self.ran["num_visual"]
        self.reach = int(at.max()) if len(at) else None
        beyond = rows["num_visual"][rows["status"] == Status.OOM.value]
        beyond = beyond[beyond > (-1 if self.reach is None else self.reach)]
        self.fails_at = int(beyond.min()) if len(beyond) else None

    def rank(self) -> tuple[int, float, str]:
        """Smallest for the best: reaches furthest, then fastest there, then by name."""
        seconds = self.ran["time_s"][self.ran["num_visual"] == self.reach]
        known = seconds[~pd.isna(seconds)]
        return (-(self.reach or -1), float(known.min()) if len(known) else np.inf, self.series)

    def places(self, metric: str) -> dict[int, int]:
        """The place in ``ran`` of the row that tells ``metric`` at each |V|: the latest."""
        if metric not in self._places:
            told = np.flatnonzero(~pd.isna(self.ran[metric]))
            at = self.ran["num_visual"][told]
            self._places[metric] = dict(zip(at.tolist(), told.tolist(), strict=True))
        return self._places[metric]

    def curve(self, metric: str) -> tuple[Fit, float, float] | None:
        """The fit of every value, also those predicted beyond the memory, and its range of |V|."""
        if metric not in self._curves:
            self._curves[metric] = self._fitted(metric)
        return self._curves[metric]

    def _fitted(self, metric: str) -> tuple[Fit, float, float] | None:
        known = ~pd.isna(self.rows[metric])
        at = self.rows["num_visual"][known]
        if len(np.unique(at)) < 3:
            return None
        return fit_curve(at, self.rows[metric][known]), float(at.min()), float(at.max())


def _against(system: _System, baseline: _System, metric: str, samples: Samples) -> dict[str, Any]:
    """The comparison at the largest |V| that both ran."""
    facts: dict[str, Any] = {"metric": metric, "crosses_at": _crossing(system, baseline, metric)}
    ours, theirs = system.places(metric), baseline.places(metric)
    at = max(ours.keys() & theirs.keys(), default=None)
    if at is None:
        return facts
    own, base = _row(system.ran, ours[at]), _row(baseline.ran, theirs[at])
    facts |= {
        "num_visual": at,
        "value": own[metric],
        "baseline_value": base[metric],
        "ratio": _over(base[metric], own[metric]),
        "num_samples": own["num_samples"],
        "baseline_num_samples": base["num_samples"],
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


def _identity(row: dict[str, Any]) -> Identity:
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


def _terms(found: Fit) -> list[float]:
    return [term for term in found.terms if term is not None]
