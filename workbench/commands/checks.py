"""Options beside a cell's that can be wrong by themselves, and what looks at each."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.probe.predicting import SOLVE
from workbench.vocabulary.errors import Faults, RequestError, unknown_name

if TYPE_CHECKING:
    from workbench.vocabulary.fields import Layers
    from workbench.vocabulary.protocol import Protocol


def layers_of(emulate: str | None) -> "Layers | None":
    """The protocol's value of ``--emulate``; raises RequestError for another word."""
    number = int(emulate) if emulate is not None and emulate.isdecimal() else emulate
    return _protocol("emulate", number).emulate


def check_chart(chart: Path | None) -> None:
    """Raise RequestError for the name of a figure's file that is no page's."""
    if chart is not None and chart.suffix != ".html":
        raise RequestError(f"chart {str(chart)!r}: a file whose name ends in .html")


def check_store(path: Path) -> None:
    """Raise RequestError for a file that is no store, or cannot be read."""
    from workbench.store import Store

    with Store.open(path):
        pass


def _protocol(name: str, value: Any) -> "Protocol":
    from workbench.vocabulary.protocol import make_protocol

    return make_protocol(**{name: value})


def _check_calibration(asked: str | list[str]) -> None:
    from workbench.vocabulary.calibration import Choice

    Choice.of([asked] if isinstance(asked, str) else asked)


def _check_solve(solve: str) -> None:
    if solve not in SOLVE:
        raise unknown_name("solve", solve, SOLVE)


def _check_systems(names: list[str]) -> None:
    from workbench.lvlm.attention import SYSTEMS

    faults = Faults()
    for name in names:
        with faults:
            _ = SYSTEMS[name]
    faults.raise_all()


CHECKS: dict[str, Callable[[Any], object]] = {
    "calibration": _check_calibration,
    "chart": check_chart,
    "emulate": layers_of,
    "max_prepare": partial(_protocol, "max_prepare"),
    "max_seconds": partial(_protocol, "max_seconds"),
    "solve": _check_solve,
    "systems": _check_systems,
}
"""By the names of commands' parameters; each raises RequestError."""


def wrong_options(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with each of a command's options by itself."""
    for name, check in CHECKS.items():
        if values.get(name) is not None:
            try:
                check(values[name])
            except RequestError as error:
                yield from error.faults
