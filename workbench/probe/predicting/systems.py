"""Attention systems side by side on one card: what each costs, how far it reaches, from where on
it costs less than another.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.lvlm.attention import STREAM_OPTIONS, SYSTEMS
from workbench.lvlm.places import visual_unit
from workbench.probe.predicting.limit import Limit, predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.record import Record
from workbench.vocabulary.systems import Entry, entry

BASELINE = "s_attn"
METRICS = ("flops", "peak_bytes", "time_s")
"""What a system may take less of."""
LARGEST = 2**20
"""The |V| up to which an efficiency length is looked for."""
WITHIN = 0.01
"""How near an efficiency length is found."""


@dataclass(frozen=True)
class Compared:
    """One system beside the baseline, on one card."""

    name: str
    entry: Entry
    cell: Cell
    record: Record | None
    """Its cell, predicted; None where the system cannot be asked for such a cell."""
    error: str | None
    """Why there is no such record, or none that is served, or no threshold."""
    limit: Limit | None
    """Its threshold; None where it was not asked for, or the system does not serve the cell, or
    the same with more tokens."""
    lengths: dict[str, int | None]
    """By metric the smallest |V| from which on it takes less than the baseline, within 1 %; None
    where it does not up to ``LARGEST``. Empty where it was not asked for."""

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        limit = self.limit
        return {
            "attention": self.name,
            "label": self.entry.label,
            "group": self.entry.group,
            "gives_up": self.entry.gives_up,
            "kernel": self.cell.kernel,
            "status": "unsupported" if self.record is None else str(self.record.status),
            "error": self.error,
            "metrics": {} if self.record is None else self.record.metrics,
            "max_visual": None if limit is None else limit.max_visual,
            "fails_at": None if limit is None else limit.fails_at,
            "efficiency_lengths": self.lengths,
            "flags": [] if self.record is None else self.record.flags,
        }


def compare_systems(
    cell: Cell,
    device: str,
    names: Sequence[str] = (),
    limits: bool = True,
    lengths: bool = False,
    calibration: str | None = None,
    pictures: Pictures | None = None,
) -> Iterator[Compared]:
    """Every system (or those of ``names``) on a cell like this one, one after the other.

    ``pictures`` are what the cell shows; other |V| are of the images that the tower makes of them
    by itself. A system that the cell's kernel cannot serve runs on ``eager``, as its record's cell
    says. A system without visual rows has logits of text. Raises RequestError for unknown names,
    and for a cell that S-Attn cannot be asked for either.
    """
    faults = Faults()
    for name in names:
        with faults:
            _ = SYSTEMS[name]
    baseline = _Curve(_cells(cell, BASELINE), device, calibration, pictures)
    with faults:  # What is wrong with the cell itself is said before any system is asked.
        baseline(cell.num_visual, METRICS[0])
    faults.raise_all()
    # The one that the others are compared with comes first; a registry's order is its imports'.
    for name in names or sorted(SYSTEMS, key=lambda name: (name != BASELINE, name)):
        listed = entry("attention", name) or Entry(name, name, "other", "")
        try:
            record = _first_served(_cells(cell, name), device, calibration, pictures)
        except RequestError as error:  # Its own: S-Attn took the same cell.
            yield Compared(name, listed, cell, None, str(error), None, {})
            continue
        served = record.status != "unsupported"
        limit, reason = None, record.error
        if limits and served:
            try:
                limit = predicted_limit(record.cell.replace(num_visual=1), device)
            except Unsupported as refusal:  # At other |V|, as where a window bites there.
                reason = f"largest |V|: {refusal}"
        crossings: dict[str, int | None] = {}
        if lengths and served and name != BASELINE:
            own = _Curve([record.cell], device, calibration, pictures)
            crossings = efficiency_lengths(own, baseline, visual_unit(record.cell))
        yield Compared(name, listed, record.cell, record, reason, limit, crossings)


def _cells(cell: Cell, name: str) -> list[Cell]:
    """The cell under a system, on its own kernel and on the one that serves everything."""
    listed = entry("attention", name)
    fields: dict[str, Any] = {"attention": name}
    if name != cell.attention:
        fields["settings"] = None
    if listed is not None and listed.logits == "text":
        fields["logits"] = "text"
    # What a system does not have is left out for it, as its record's cell says.
    lacking = [n for n in STREAM_OPTIONS if getattr(cell, n) and n not in SYSTEMS[name].options]
    fields |= {option: Cell.model_fields[option].default for option in lacking}
    kernels = dict.fromkeys((cell.kernel, "eager"))
    return [cell.replace(kernel=kernel, **fields) for kernel in kernels]


def _first_served(
    cells: Iterable[Cell], device: str, calibration: str | None, pictures: Pictures | None
) -> Record:
    """The record of the first cell that can be served; else that of the first."""
    records = []
    for cell in cells:
        records.append(predict(cell, device, calibration, pictures=pictures))
        if records[-1].status != "unsupported":
            return records[-1]
    return records[0]


class _Curve:
    """The metrics of a kind of cell over |V|, predicted where they are asked for."""

    def __init__(
        self,
        cells: Sequence[Cell],
        device: str,
        calibration: str | None,
        pictures: Pictures | None = None,
    ) -> None:
        """``pictures`` are what the cells show at the |V| that they have."""
        self.cells, self.device, self.calibration = cells, device, calibration
        self.pictures = pictures
        self._known: dict[int, Record] = {}

    def __call__(self, num_visual: int, metric: str) -> float | None:
        if num_visual not in self._known:
            cells = (cell.replace(num_visual=num_visual) for cell in self.cells)
            shown = self.pictures if num_visual == self.cells[0].num_visual else None
            self._known[num_visual] = _first_served(cells, self.device, self.calibration, shown)
        return self._known[num_visual].metrics.get(metric)


def efficiency_lengths(
    system: "_Curve", baseline: "_Curve", unit: int = 1
) -> dict[str, int | None]:
    """By metric the smallest |V|, a multiple of ``unit``, from which on a system takes less.

    From there on it does at every doubling up to ``LARGEST``; 0 where it does from one unit on.
    """
    sizes = [unit]
    while sizes[-1] * 2 <= LARGEST:
        sizes.append(sizes[-1] * 2)

    def less(size: int, metric: str) -> bool:
        ours, theirs = system(size, metric), baseline(size, metric)
        return ours is not None and theirs is not None and ours < theirs

    lengths: dict[str, int | None] = {}
    for metric in METRICS:
        more = next((i for i in range(len(sizes) - 1, -1, -1) if not less(sizes[i], metric)), None)
        if more is None:
            lengths[metric] = 0
        elif more == len(sizes) - 1:
            lengths[metric] = None
        else:
            low, high = sizes[more] // unit, sizes[more + 1] // unit
            while high - low > max(1, WITHIN * low):
                middle = (low + high) // 2
                low, high = (low, middle) if less(middle * unit, metric) else (middle, high)
            lengths[metric] = high * unit
    return lengths
