"""How far seconds are off that a fit did not see: which cells are held out, and their errors."""

from collections.abc import Iterable, Sequence

import numpy as np

from workbench.sweep.calibration_fit import Cases, Floats, fit
from workbench.vocabulary.calibration_parts import Spread
from workbench.vocabulary.errors import Failure, RequestError

FOLDS = 10


def folds(cases: Cases) -> list[set[int]]:
    """Places of the cases that are held out together: every tenth, each once."""
    count = min(FOLDS, len(cases.cases))
    return [set(range(i, len(cases.cases), count)) for i in range(count)]


def by_system(cases: Cases) -> list[set[int]]:
    """Places of the cases of each attention system; none where there is only one."""
    groups: dict[str, set[int]] = {}
    for i, case in enumerate(cases.cases):
        groups.setdefault(case.system, set()).add(i)
    return list(groups.values()) if len(groups) > 1 else []


def others(cases: Cases, run: str) -> set[int]:
    """Places of the cases of every run but this one; RequestError where there is none of either.

    A run is named by its id, or by its sweep, whose name the id begins with.
    """
    mine = {
        i
        for i, case in enumerate(cases.cases)
        if case.run == run or case.run.startswith(f"{run}-")
    }
    rest = set(range(len(cases.cases))) - mine
    if not mine or not rest:
        runs = ", ".join(sorted({case.run for case in cases.cases}))
        raise RequestError(f"alone {run!r}: one of several runs is needed; there are {runs}")
    return rest


def by_kind(errors: dict[int, float], kinds: Sequence[str]) -> dict[str, Spread]:
    groups: dict[str, list[float]] = {}
    for place, error in errors.items():
        groups.setdefault(kinds[place], []).append(error)
    return {kind: spread_of(groups[kind]) for kind in sorted(groups)}


def held_out(
    cases: Cases,
    groups: Iterable[set[int]],
    floor: dict[str, float],
    host: bool,
    near: dict[str, float],
) -> dict[int, float]:
    """Relative error of each case of each group, predicted by a fit that saw none of the group.

    ``near`` is where those fits begin. A group without which too little is left has none.
    """
    errors: dict[int, float] = {}
    for group in groups:
        try:
            fitted = fit(cases.without(group), floor, host, near)
        except Failure:
            continue
        places = sorted(group)
        own = Cases([cases.cases[i] for i in places])
        relative = own.seconds(fitted.cost) / own.measured - 1
        errors |= dict(zip(places, map(float, relative), strict=True))
    return errors


def spread_of(errors: Floats | Sequence[float]) -> Spread:
    absolute = np.abs(errors)
    return Spread(
        median=float(np.median(absolute)),
        worst=float(absolute.max()),
        bias=float(np.median(errors)),
        num_cells=len(errors),
    )
