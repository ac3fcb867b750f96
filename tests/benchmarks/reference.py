"""Predicted against measured, for every record and threshold of ``reports/reference/h100-80gb``.

Nothing is measured here: a missed limit is a fault of the prediction, not of the machine that ran
this.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from workbench.probe.predicting.emulation import emulated_layers
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.store import Store
from workbench.vocabulary.calibration import calibration_for
from workbench.vocabulary.calibration_parts import kind_of
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.record import Record, Status

FOLDER = Path(__file__).parents[2] / "reports" / "reference" / "h100-80gb"
DEVICE = "h100-80gb"
PEAK_LIMIT = 0.02
RESERVED_LIMIT = 0.05
"""At the median of the sweeps."""
THRESHOLD_LIMIT = 0.03
SECONDS_LIMIT = 0.10
"""Of each training step and prefill, and of eager layers from EAGER_FROM tokens on."""
EAGER_FROM = 4096
MEDIAN_SECONDS_LIMIT = 0.05
"""Of each kind of cell that the card bounds."""
HOST_SECONDS_LIMIT = 0.25
"""At the median of each kind that the host bounds: the same calls took 22 and 39 ms."""
METRICS = ("flops", "peak_bytes", "reserved_bytes", "time_s")


class Pair(NamedTuple):
    """One metric of one measured cell, beside its prediction."""

    cell: Cell
    kind: str
    metric: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


class Row(NamedTuple):
    """A figure that has a limit: an absolute relative error."""

    name: str
    value: float
    limit: float


def records(folder: Path = FOLDER) -> list[Record]:
    """Every measured record that ended ``ok``; of a cell that was measured twice, the last."""
    with Store.open(folder / "records.db") as store:
        ended = [r for r in store.records() if r.status == Status.OK]
    return list({record.cell.key: record for record in ended}.values())


def pairs(measured: Iterable[Record]) -> Iterator[Pair]:
    """Each metric that a record and its prediction both have."""
    for record in measured:
        found = predict(record.cell, DEVICE, emulate=emulated_layers(record))
        waits = any(flag.startswith("host_bound") for flag in found.flags)
        for metric in METRICS:
            seen, foretold = record.metrics.get(metric), found.metrics.get(metric)
            if seen and foretold:
                yield Pair(record.cell, kind_of(record.cell, waits), metric, seen, foretold)


def show(found: Iterable[Pair]) -> Iterator[Pair]:
    """The same pairs, each printed as it passes."""
    for pair in found:
        print(
            f"{pair.error:+9.2%}  {pair.metric:15} {pair.measured:15.6g} measured "
            f"{pair.predicted:15.6g} predicted  {pair.cell.title}",
            flush=True,
        )
        yield pair


def by_limit(found: list[Pair]) -> Iterator[Row]:
    """What the limits are held against: the worst, or the median, of each kind."""
    for metric, limit in (("flops", 0.0), ("peak_bytes", PEAK_LIMIT)):
        worst = max((p for p in found if p.metric == metric), key=lambda p: abs(p.error))
        yield Row(f"{metric}, worst: {worst.cell.title}", abs(worst.error), limit)
    held = [abs(p.error) for p in found if p.metric == "reserved_bytes"]
    yield Row(f"reserved_bytes of {len(held)} cells, median", median(held), RESERVED_LIMIT)
    timed = [p for p in found if p.metric == "time_s"]
    for kind in sorted({p.kind for p in timed}):
        own = [p for p in timed if p.kind == kind]
        waits = kind.endswith("host-bound")
        middle = median(abs(p.error) for p in own)
        limit = HOST_SECONDS_LIMIT if waits else MEDIAN_SECONDS_LIMIT
        yield Row(f"time_s of {len(own)} × {kind}, median", middle, limit)
        strict = (
            own
            if kind in ("training step", "prefill")
            else []
            if waits
            else [p for p in own if p.cell.kernel == "eager" and p.cell.num_visual >= EAGER_FROM]
        )
        if strict:
            worst = max(strict, key=lambda p: abs(p.error))
            name = f"time_s, {kind}, worst: {worst.cell.title}"
            yield Row(name, abs(worst.error), SECONDS_LIMIT)


def held_out() -> Iterator[Row]:
    """What the packaged calibration states of a fit of the layers alone."""
    found = calibration_for(DEVICE)
    assert found is not None, "a calibration comes with the workbench"
    for kind in ("training step", "prefill"):
        spread = found.held_out_by_kind["alone"][kind]
        name = f"time_s of {kind}, held out: a fit of {found.alone} alone, worst"
        yield Row(name, spread.worst, SECONDS_LIMIT)


def thresholds(folder: Path = FOLDER) -> Iterator[Row]:
    """Each threshold that was found by trials of one emulated rank, beside its prediction."""
    document = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
    for name, measured in document.items():
        fields = {key: value for key, value in measured["cell"].items() if value is not None}
        layers = int(measured["flags"][0].partition("; ")[2].split()[0])
        found = predicted_limit(Cell.model_validate(fields), DEVICE, emulate=layers)
        lowest = measured["max_visual"]
        print(
            f"threshold  {lowest:>9,} to {measured['fails_at']:>9,} measured "
            f"{found.max_visual or 0:>9,} predicted  {name}",
            flush=True,
        )
        error = abs((found.max_visual or 0) / lowest - 1)
        yield Row(f"threshold of {name}, {layers} layers emulated", error, THRESHOLD_LIMIT)


def rows() -> Iterator[Row]:
    """Every figure with a limit, after each pair has been printed."""
    yield from by_limit(list(show(pairs(records()))))
    yield from held_out()
    yield from thresholds()
