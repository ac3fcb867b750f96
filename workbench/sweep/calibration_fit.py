"""The fit behind a calibration: rates and overheads from whole iterations of many cells.

The model is that of ``probe.predicting.roofline``, evaluated for all cells at once; residuals are
logarithms of predicted over measured seconds, so that a factor counts the same at every size.

A cell in which the host sets the pace says nothing of what the device reaches: rates are fitted to
the cells that the device bounds, and the host's costs, with those rates given, to the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from workbench.probe.predicting.roofline import HOST_BOUND, Work, stand_ins, together
from workbench.vocabulary.errors import Failure

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
BYTES, OPTIMIZER = "bytes", "optimizer bytes"
OVERHEAD, LAUNCH, EXPOSED = "overhead", "launch", "exposed"
START = "start "
"""Of the host, before the device has work enough: ``start forward``, ``start train``."""
FEWEST = 8
"""Cells below which nothing is fitted: rates are about five parameters."""
SOFT = 0.1
"""Residuals beyond this (10 %) count less than by their square: one odd cell decides nothing."""
DECIDES = 0.05
"""The share of a cell's time from which on a parameter matters to it."""
VAGUE = 3.0
"""A rate of attention that is known no better than within this factor is left to its stand-in."""
MAX_STEPS = 100
ROUNDS = 2
"""Of rates and host costs in turn: each is fitted with the other given."""
LEAST, MOST = 1e-30, 1e3
"""Seconds of anything, where no datasheet says more."""
WIDEST = 10.0
"""An interval is cut off at a factor of e to this."""
ENOUGH = 2
"""Cells that a parameter has to matter to, or it is not determined."""


class Case(NamedTuple):
    """A measured cell: what its operators do, and its seconds."""

    system: str
    work: Sequence[Work]
    optimizer_bytes: int
    seconds: float
    phase: str = "forward"
    """Whose start it has: ``forward`` (decode too) or ``train``."""
    host_bound: bool = False
    """Whether its record says that the device waited for the host."""
    run: str = ""


@dataclass(frozen=True)
class Fit:
    """Seconds a FLOP, a byte, a call, and the exposed share of what two could hide behind each
    other: of each parameter that the cases determine."""

    cost: dict[str, float]
    interval: dict[str, tuple[float, float]]
    num_cells: dict[str, int]
    undetermined: tuple[str, ...]
    num_host_bound: int = 0
    """Cases that had no say in the rates."""


class _Part(NamedTuple):
    """Some parameters, fitted to some cases while the others stay."""

    cost: dict[str, float]
    interval: dict[str, tuple[float, float]]
    num_cells: dict[str, int]
    dropped: tuple[str, ...]


class Cases:
    """Cases as flat arrays over all their operators."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)
        rows = [(i, work) for i, case in enumerate(self.cases) for work in case.work]
        self.cell = np.array([i for i, _ in rows], dtype=np.intp)
        self.calls = np.array([work.calls for _, work in rows], dtype=float)
        self.flops = np.array([work.flops for _, work in rows], dtype=float)
        self.bytes = np.array([work.operator.bytes for _, work in rows], dtype=float)
        self.classes = sorted({work.rate for _, work in rows if work.rate})
        """Rates that an operator of these cases computes at."""
        place = {name: i for i, name in enumerate(self.classes)}
        place_of_none = len(place)
        self.rate = np.array([place.get(work.rate or "", place_of_none) for _, work in rows])
        self.optimizer = np.array([case.optimizer_bytes for case in self.cases], dtype=float)
        self.measured = np.array([case.seconds for case in self.cases])
        self.flagged = np.array([case.host_bound for case in self.cases], dtype=bool)
        self.phases = sorted({case.phase for case in self.cases})
        self.phase = np.array([self.phases.index(c.phase) for c in self.cases], dtype=np.intp)

    def per_cell(self, values: Floats) -> Floats:
        """Sums of a value of each operator, over the operators of each cell."""
        sums = np.bincount(self.cell, weights=values, minlength=len(self.cases))
        return sums.astype(np.float64)

    def device(self, cost: dict[str, float]) -> Floats:
        """Predicted seconds that the device needs for the operators of each cell."""
        per_flop = np.array([cost.get(name, stand_in(name, cost)) for name in self.classes] + [0])
        computing = self.flops * per_flop[self.rate]
        moving = self.bytes * cost.get(BYTES, 0.0)
        exposed = cost.get(EXPOSED, 0.0) * np.minimum(computing, moving)
        each = np.maximum(computing, moving) + exposed + cost.get(OVERHEAD, 0.0)
        return self.per_cell(self.calls * each)

    def host(self, cost: dict[str, float]) -> Floats:
        """Predicted seconds in which the host issues the operators of each cell."""
        start = np.array([cost.get(START + phase, 0.0) for phase in self.phases])
        return start[self.phase] + self.per_cell(self.calls) * cost.get(LAUNCH, 0.0)

    def seconds(self, cost: dict[str, float]) -> Floats:
        """Predicted seconds of each cell, as ``probe.predicting.roofline`` has them."""
        stepping = self.optimizer * cost.get(OPTIMIZER, cost.get(BYTES, 0.0))
        return together(self.device(cost), self.host(cost)) + stepping

    def host_bound(self, cost: dict[str, float]) -> Bools:
        """Which cells keep the device waiting: by their record's word, or by the prediction."""
        device = self.device(cost)
        return self.flagged | (device < HOST_BOUND * together(device, self.host(cost)))

    def shares(self, cost: dict[str, float]) -> dict[str, Floats]:
        """Which share of each cell's seconds each parameter decides: d log seconds / d log it."""
        step, before = 1.001, np.log(self.seconds(cost))
        return {
            name: (np.log(self.seconds({**cost, name: value * step})) - before) / np.log(step)
            for name, value in cost.items()
        }

    def without(self, left_out: set[int]) -> "Cases":
        """All but those at these places."""
        return Cases([case for i, case in enumerate(self.cases) if i not in left_out])


def stand_in(rate: str, cost: dict[str, float]) -> float:
    """For a class that is not among the costs: that of the nearest, else the fastest there."""
    for other in stand_ins(rate):
        if other in cost:
            return cost[other]
    return min(
        (cost[name] for name in cost if name.startswith(("matmul", "attention"))), default=0
    )


def fit(
    cases: Cases, floor: dict[str, float], host: bool, near: dict[str, float] | None = None
) -> Fit:
    """Fit what the cases determine; ``floor`` is the least seconds that a device can take.

    ``host`` says whether a host issues the operators of a device of its own, ``near`` where to
    begin. Raises Failure where fewer than FEWEST cases are bound by the device.
    """
    rates = [*cases.classes, BYTES, OVERHEAD, EXPOSED]
    rates += [OPTIMIZER] if cases.optimizer.any() else []
    hosts = [LAUNCH, *(START + phase for phase in cases.phases)] if host else []
    waiting = cases.flagged.copy()
    if host:
        # All at once first: which cells the host bounds is itself a word of the fit.
        waiting = cases.host_bound(_solve(cases, [*rates, *hosts], {}, floor, near)[0])
    if np.count_nonzero(~waiting) < FEWEST:
        raise Failure(
            f"calibrate: {np.count_nonzero(~waiting)} of {len(waiting)} usable records are bound "
            f"by the device and not by its host, at least {FEWEST} are needed; measure larger "
            "num_visual"
        )
    device = Cases([case for case, w in zip(cases.cases, waiting, strict=True) if not w])
    issued = Cases([case for case, w in zip(cases.cases, waiting, strict=True) if w])
    issue_fit = _Part({}, {}, {}, ())
    for _ in range(ROUNDS):
        names = [
            name
            for name in rates
            if name in (BYTES, OVERHEAD, EXPOSED, OPTIMIZER) or name in device.classes
        ]
        device_fit = _determined(device, names, issue_fit.cost, floor, near)
        if len(issued.cases) >= ENOUGH:
            names = [
                name
                for name in hosts
                if name == LAUNCH or name.removeprefix(START) in issued.phases
            ]
            issue_fit = _determined(issued, names, device_fit.cost, floor, near)
    cost = device_fit.cost | issue_fit.cost
    return Fit(
        cost,
        device_fit.interval | issue_fit.interval,
        device_fit.num_cells | issue_fit.num_cells,
        tuple(sorted({*rates, *hosts} - set(cost))),
        int(waiting.sum()),
    )


def _determined(
    cases: Cases,
    names: Sequence[str],
    given: dict[str, float],
    floor: dict[str, float],
    near: dict[str, float] | None,
) -> _Part:
    """Fit ``names`` with the other costs ``given``, without those that the cases leave open."""
    names, undetermined = list(names), list[str]()
    while names:
        cost, interval = _solve(cases, names, given, floor, near)
        shares = cases.shares(given | cost)
        counts = {name: int((shares[name] >= DECIDES).sum()) for name in names}
        weak = [
            name
            for name in names
            if counts[name] < ENOUGH
            or (name.startswith("attention") and interval[name][1] > VAGUE * cost[name])
        ]
        if not weak:
            return _Part(cost, interval, counts, tuple(undetermined))
        # One at a time, the weakest first: what it took may make another one matter.
        worst = min(weak, key=lambda name: float(shares[name].max()))
        names.remove(worst)
        undetermined.append(worst)
    return _Part({}, {}, {}, tuple(undetermined))


def _solve(
    cases: Cases,
    names: Sequence[str],
    given: dict[str, float],
    floor: dict[str, float],
    near: dict[str, float] | None,
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    low = np.log([floor.get(name, LEAST) for name in names])
    high = np.array([0.0 if name == EXPOSED else np.log(MOST) for name in names])

    def residuals(logs: Floats) -> Floats:
        cost = dict(zip(names, np.exp(logs), strict=True))
        return np.log(cases.seconds(given | cost) / cases.measured)

    tries = [
        least_squares(
            residuals,
            np.clip(np.log(start), low + 1e-3, high - 1e-3),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=SOFT,
            max_nfev=MAX_STEPS,
        )
        for start in _starts(cases, names, near)
    ]
    best = min(tries, key=lambda one: float(one.cost))
    residual = residuals(best.x)
    free = max(len(residual) - len(names), 1)
    covariance = np.linalg.pinv(best.jac.T @ best.jac) * (residual @ residual) / free
    width = np.minimum(1.96 * np.sqrt(np.maximum(np.diag(covariance), 0.0)), WIDEST)
    cost = {name: float(value) for name, value in zip(names, np.exp(best.x), strict=True)}
    interval = {
        name: (float(np.exp(x - w)), float(np.exp(x + w)))
        for name, x, w in zip(names, best.x, width, strict=True)
    }
    return cost, interval


def _starts(cases: Cases, names: Sequence[str], near: dict[str, float] | None) -> list[Floats]:
    """Where to begin: non-negative least squares of the sum of all terms, relative to what was
    measured, and what that leaves at 0 where it takes a hundredth of the time.

    No call takes longer than the fastest iteration over its calls. Whether the host or the device
    takes that long, two starts ask: a maximum has little slope towards its smaller side.
    """
    calls = cases.per_cell(cases.calls)
    columns = {
        BYTES: cases.per_cell(cases.calls * cases.bytes),
        OVERHEAD: calls,
        OPTIMIZER: cases.optimizer,
    }
    for i, name in enumerate(cases.classes):
        columns[name] = cases.per_cell(np.where(cases.rate == i, cases.calls * cases.flops, 0.0))
    terms = [name for name in names if name in columns]
    start: dict[str, float] = {}
    if terms:
        matrix = np.stack([columns[name] / cases.measured for name in terms], axis=1)
        scale = np.maximum(matrix.max(axis=0), LEAST)
        scaled, _ = nnls(matrix / scale, np.ones(len(cases.cases)))
        start = dict(zip(terms, np.maximum(scaled, 0.01) / scale, strict=True))
    fastest = float((cases.measured / calls).min())
    begin = {START + phase: 0.2 * float(cases.measured.min()) for phase in cases.phases}
    fast: dict[str, float] = {LAUNCH: 0.9 * fastest, OVERHEAD: 0.1 * fastest}
    slow: dict[str, float] = {LAUNCH: 0.1 * fastest, OVERHEAD: 0.5 * fastest}
    return [
        np.array([{**start, EXPOSED: 0.3, **begin, **most}[name] for name in names])
        for most in ((fast, slow) if near is None else ({**slow, **near},))
    ]
