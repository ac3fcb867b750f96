"""The fit behind a calibration: rates and overheads from whole iterations of many cells.

The model is that of ``probe.roofline.times``, evaluated for all cells at once; residuals are
logarithms of predicted over measured seconds, so that a factor counts the same at every size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from workbench.probe.predicting.roofline import Work

Floats = np.ndarray[Any, np.dtype[np.float64]]
BYTES, OPTIMIZER = "bytes", "optimizer bytes"
OVERHEAD, LAUNCH, EXPOSED = "overhead", "launch", "exposed"
SOFT = 0.1
"""Residuals beyond this (10 %) count less than by their square: one odd cell decides nothing."""
DECIDES = 0.05
"""The share of a cell's time from which on a parameter matters to it."""
VAGUE = 3.0
"""A rate of attention that is known no better than within this factor is left to its stand-in."""
MAX_STEPS = 100
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


@dataclass(frozen=True)
class Fit:
    """Seconds a FLOP, a byte, a call, and the exposed share of what two could hide behind each
    other: of each parameter that the cases determine."""

    cost: dict[str, float]
    interval: dict[str, tuple[float, float]]
    num_cells: dict[str, int]
    undetermined: tuple[str, ...]


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

    def per_cell(self, values: Floats) -> Floats:
        """Sums of a value of each operator, over the operators of each cell."""
        sums = np.bincount(self.cell, weights=values, minlength=len(self.cases))
        return sums.astype(np.float64)

    def seconds(self, cost: dict[str, float]) -> Floats:
        """Predicted seconds of each cell, as ``probe.roofline.times`` has them."""
        per_flop = np.array([cost.get(name, stand_in(name, cost)) for name in self.classes] + [0])
        computing, moving = self.flops * per_flop[self.rate], self.bytes * cost[BYTES]
        exposed = cost.get(EXPOSED, 0.0) * np.minimum(computing, moving)
        each = np.maximum(computing, moving) + exposed + cost.get(OVERHEAD, 0.0)
        host = self.per_cell(self.calls) * cost.get(LAUNCH, 0.0)
        device = self.per_cell(self.calls * each)
        return np.maximum(device, host) + self.optimizer * cost.get(OPTIMIZER, cost[BYTES])

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
    """For a class that is not among the costs: its data type's matmul, else the fastest there."""
    for word in rate.split():
        if f"matmul {word}" in cost:
            return cost[f"matmul {word}"]
    return min(
        (cost[name] for name in cost if name.startswith(("matmul", "attention"))), default=0
    )


def fit(cases: Cases, floor: dict[str, float], host: bool) -> Fit:
    """Fit what the cases determine; ``floor`` is the least seconds that a device can take.

    ``host`` says whether a host issues the operators of a device of its own.
    """
    names = [*cases.classes, BYTES, OVERHEAD, EXPOSED]
    names += [LAUNCH] if host else []
    names += [OPTIMIZER] if cases.optimizer.any() else []
    dropped: list[str] = []
    while True:
        found, interval = _solve(cases, names, floor)
        shares = cases.shares(found)
        counts = {name: int((shares[name] >= DECIDES).sum()) for name in names}
        weak = [
            name
            for name in names
            if (counts[name] < ENOUGH and name != BYTES)
            or (name.startswith("attention") and interval[name][1] > VAGUE * found[name])
        ]
        if not weak:
            return Fit(found, interval, counts, tuple(sorted(dropped)))
        # One at a time, the weakest first: what it took may make another one matter.
        worst = min(weak, key=lambda name: float(shares[name].max()))
        names.remove(worst)
        dropped.append(worst)


def _solve(
    cases: Cases, names: Sequence[str], floor: dict[str, float]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    low = np.log([floor.get(name, 1e-30) for name in names])
    high = np.array([0.0 if name == EXPOSED else np.inf for name in names])

    def residuals(logs: Floats) -> Floats:
        cost = dict(zip(names, np.exp(logs), strict=True))
        return np.log(cases.seconds(cost) / cases.measured)

    tries = [
        least_squares(
            residuals, np.clip(np.log(start), low + 1e-3, high - 1e-3), bounds=(low, high),
            loss="soft_l1", f_scale=SOFT, max_nfev=MAX_STEPS,
        )
        for start in _starts(cases, names)
    ]  # fmt: skip
    found = min(tries, key=lambda one: float(one.cost))
    left = residuals(found.x)
    free = max(len(left) - len(names), 1)
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * (left @ left) / free
    width = np.minimum(1.96 * np.sqrt(np.maximum(np.diag(covariance), 0.0)), WIDEST)
    cost = {name: float(value) for name, value in zip(names, np.exp(found.x), strict=True)}
    interval = {
        name: (float(np.exp(x - w)), float(np.exp(x + w)))
        for name, x, w in zip(names, found.x, width, strict=True)
    }
    return cost, interval


def _starts(cases: Cases, names: Sequence[str]) -> list[Floats]:
    """Where to begin: non-negative least squares of the sum of all terms, relative to what was
    measured, and what that leaves at 0 where it takes a hundredth of the time.

    No call takes longer than the fastest iteration over its calls. Whether the host or the device
    takes that long, two starts ask: a maximum has no slope towards its smaller side.
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
    matrix = np.stack([columns[name] / cases.measured for name in terms], axis=1)
    scale = matrix.max(axis=0)
    found, _ = nnls(matrix / scale, np.ones(len(cases.cases)))
    known = dict(zip(terms, np.maximum(found, 0.01) / scale, strict=True))
    fastest = float((cases.measured / calls).min())
    return [
        np.array([{**known, EXPOSED: 0.3, **most}[name] for name in names])
        for most in (
            {LAUNCH: 0.9 * fastest, OVERHEAD: 0.1 * fastest},
            {LAUNCH: 0.1 * fastest, OVERHEAD: 0.5 * fastest},
        )
    ]


def held_out(
    cases: Cases, groups: Iterable[set[int]], floor: dict[str, float], host: bool
) -> Floats:
    """Relative errors of the cases of each group, predicted by a fit that saw none of them."""
    errors = []
    for group in groups:
        seen = fit(cases.without(group), floor, host)
        own = Cases([cases.cases[i] for i in sorted(group)])
        errors.append(own.seconds(seen.cost) / own.measured - 1)
    return np.concatenate(errors) if errors else np.zeros(0)
