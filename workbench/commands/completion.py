"""What the shell completes a value to: names and words, without torch and in a blink.

Names of the torch half are in ``names.json`` beside this file, which a test compares with what
there is; those of plug-ins are read from their packages' entry points, and none is loaded.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

NAMES = Path(__file__).with_name("names.json")
PLUGINS = {
    "model": "workbench.models",
    "attention": "workbench.attention",
    "reduce": "workbench.reducers",
    "device": "workbench.devices",
}
"""Groups of entry points by what they name."""
FIELDS_OF = {"memory_cap": "device"}
"""Fields of a cell whose names go by another word."""


@cache
def names() -> dict[str, list[str]]:
    """Names by what they are of."""
    from workbench.vocabulary.devices import DEVICES
    from workbench.vocabulary.metrics import METRICS
    from workbench.vocabulary.presets import PRESETS
    from workbench.vocabulary.systems import entries

    own: dict[str, list[str]] = json.loads(NAMES.read_text(encoding="utf-8"))
    own |= {kind: list(listed) for kind, listed in entries().items()}
    return {**own, "device": list(DEVICES), "metric": list(METRICS), "preset": list(PRESETS)}


def names_of(kind: str) -> list[str]:
    """The names of a kind, those of plug-ins behind the workbench's own."""
    from importlib.metadata import entry_points

    group = PLUGINS.get(kind)
    offers = entry_points(group=group) if group is not None else ()
    return list(dict.fromkeys([*names().get(kind, ()), *(offer.name for offer in offers)]))


def completes(*kinds: str, also: Iterable[str] = ()) -> Callable[[str], list[str]]:
    """What ``typer.Option`` takes as ``autocompletion``: names of kinds, and words beside them."""

    def complete(incomplete: str) -> list[str]:
        return [*also, *(name for kind in kinds for name in names_of(kind))]

    return complete


def completes_field(field: str) -> Callable[[str], list[str]]:
    """The same for a field of a cell: its names, or the words that it may be."""

    def complete(incomplete: str) -> list[str]:
        from workbench.vocabulary.cell import FIELDS

        words = _words(FIELDS[field].annotation) if field in FIELDS else ()
        return [*words, *names_of(FIELDS_OF.get(field, field))]

    return complete


def _words(annotation: Any) -> Iterator[str]:
    """The words among the types of an annotation."""
    if get_origin(annotation) is Literal:
        yield from (word for word in get_args(annotation) if isinstance(word, str))
        return
    for inner in get_args(annotation):
        yield from _words(inner)
