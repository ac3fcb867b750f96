"""Every fault of a request at once: what stops it first, the names that nothing knows, and what
its right fields say against each other."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from workbench.commands.checks import wrong_options
from workbench.vocabulary.agreement import SIZES, check_states
from workbench.vocabulary.errors import Faults, RequestError, Unsupported, WrongField

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.rules import Rule


@contextmanager
def every_fault(
    fields: Mapping[str, Any], values: Mapping[str, Any], device: str | None, measured: bool
) -> Iterator[None]:
    """A RequestError raised inside says also what else is wrong, by ``all_faults``."""
    try:
        yield
    except RequestError as error:
        raise RequestError(*all_faults(error.faults, fields, values, device, measured)) from None


def all_faults(
    first: Iterable[str],
    fields: Mapping[str, Any],
    values: Mapping[str, Any],
    device: str | None,
    measured: bool,
) -> tuple[str, ...]:
    """The faults that came ``first``, and what else is wrong with ``fields`` of a cell.

    So it is of the ``values`` of the command's own options. ``device`` is what the command was
    given, where it predicts or measures; a wrong word is told.
    """
    places = [] if device is None else [("measured" if measured else "predicted", device)]
    faults = with_new(first, wrong_options(values))
    faults = with_new(faults, wrong_names(_unquoted([fields], faults), places))
    # What an unknown preset would set is open, and so is what the other fields would say to it.
    return faults if "preset" in fields else with_new(faults, wrong_parts([fields]))


def with_names(
    error: RequestError, cells: Iterable[Mapping[str, Any]], places: Iterable[tuple[str, str]]
) -> RequestError:
    """The error with ``wrong_names`` that it does not tell itself."""
    others = wrong_names(_unquoted(cells, error.faults), places)
    return RequestError(*with_new(error.faults, others))


def with_new(faults: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """Faults, and those of ``more`` that none of them tells."""
    lines = tuple(faults)
    text = "; ".join(lines)
    return (*lines, *(fault for fault in more if fault not in text))


def wrong_parts(cells: Iterable[Mapping[str, Any]], open_fields: Iterable[str] = ()) -> list[str]:
    """What fields of cells say against each other, their models and systems.

    What depends on a field that is wrong itself, or on one of ``open_fields``, is not asked.
    Models and systems are the torch half's: without torch nothing is told.
    """
    from workbench.vocabulary.cell import Cell

    if find_spec("torch") is None:
        return []
    faults = Faults()
    for fields in cells:
        part = Cell.part_of(fields, open_fields)
        if part is not None:
            faults.add(*part.broken(part))
            broken = [names for rule, names in SIZES.items() if _breaks(rule, part)]
            part = Cell.part_of(fields, chain(open_fields, *broken))
        if part is not None:
            faults.add(*_wrong_part(part))
    return faults.lines


def _breaks(rule: "Rule", cell: "Cell") -> bool:
    try:
        return rule(cell) is not None
    except WrongField:
        return False


def _wrong_part(cell: "Cell") -> list[str]:
    from workbench.lvlm.cell_check import check
    from workbench.lvlm.models import resolve
    from workbench.lvlm.towers import tower_of
    from workbench.probe.predicting.capacity import cap_bytes

    faults = Faults()
    with faults:
        check_states(cell)
    with suppress(Unsupported), faults:
        check(cell)
    with suppress(Unsupported), faults:
        if cell.scope == "lvlm":
            tower_of(resolve(cell.model), cell.tower)
    with faults:
        if cell.memory_cap is not None:
            cap_bytes(cell.memory_cap)
    return faults.lines


def wrong_names(
    cells: Iterable[Mapping[str, Any]], places: Iterable[tuple[str, str]]
) -> list[str]:
    """Every unknown name in fields of cells, and every wrong device of sources and devices.

    Names are the torch half's: without torch nothing is told.
    """
    if find_spec("torch") is None:
        return []
    return list(dict.fromkeys([*_wrong_devices(places), *_unknown_names(cells)]))


def _unquoted(
    cells: Iterable[Mapping[str, Any]], faults: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """The fields that no fault quotes: for the others a hub may have been asked already."""
    text = "; ".join(faults)
    for fields in cells:
        yield {field: value for field, value in fields.items() if repr(value) not in text}


def _wrong_devices(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    from workbench.sweep.plan import place_elsewhere

    for source, device in places:
        try:
            place_elsewhere(source, device)
        except RequestError as error:
            yield from error.faults


def _unknown_names(cells: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    from workbench.lvlm.names import NAMED, unknown_names

    pairs: set[tuple[str, str]] = set()
    for fields in cells:
        new = {(field, fields[field]) for field in NAMED if isinstance(fields.get(field), str)}
        yield from unknown_names(dict(new - pairs))
        pairs |= new
