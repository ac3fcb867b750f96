"""Every fault of a request in one line: what stops it first, and the names that nothing knows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from workbench.commands.checks import wrong_options
from workbench.vocabulary.errors import RequestError


@contextmanager
def every_fault(
    fields: Mapping[str, Any],
    values: Mapping[str, Any],
    device: str | None,
    measured: bool = False,
) -> Iterator[None]:
    """A RequestError raised inside says also which names in ``fields`` of a cell are unknown.

    So it does of what is wrong with the ``values`` of the command's own options. ``device`` is
    what the command was given, where it predicts or measures; a wrong word is told.
    """
    try:
        yield
    except RequestError as error:
        places = [] if device is None else [("measured" if measured else "predicted", device)]
        text = str(error)
        more = [fault for fault in wrong_options(values) if fault not in text]
        raise with_names(RequestError("; ".join([text, *more])), [fields], places) from None


def with_names(
    error: RequestError, cells: Iterable[Mapping[str, Any]], places: Iterable[tuple[str, str]]
) -> RequestError:
    """The error with ``wrong_names`` that it does not tell itself."""
    text = str(error)
    # What it quotes is looked up no more: a model's name may be asked of the hub.
    rest = [
        {field: value for field, value in fields.items() if repr(value) not in text}
        for fields in cells
    ]
    others = [fault for fault in wrong_names(rest, places) if fault not in text]
    return RequestError("; ".join([text, *others]))


def wrong_names(
    cells: Iterable[Mapping[str, Any]], places: Iterable[tuple[str, str]]
) -> list[str]:
    """Every unknown name in fields of cells, and every wrong device of sources and devices.

    Names are the torch half's: without torch nothing is told.
    """
    if find_spec("torch") is None:
        return []
    return list(dict.fromkeys([*_wrong_devices(places), *_unknown_names(cells)]))


def _wrong_devices(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    from workbench.sweep.plan import place_elsewhere

    for source, device in places:
        try:
            place_elsewhere(source, device)
        except RequestError as error:
            yield str(error)


def _unknown_names(cells: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    from workbench.lvlm.names import NAMED, unknown_names

    pairs: set[tuple[str, str]] = set()
    for fields in cells:
        new = {(field, fields[field]) for field in NAMED if isinstance(fields.get(field), str)}
        yield from unknown_names(dict(new - pairs))
        pairs |= new
