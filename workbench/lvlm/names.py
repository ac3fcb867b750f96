"""The names in a cell: what looks each up, and every one that nothing knows, at once."""

from collections.abc import Callable, Mapping
from typing import Any

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.models import resolve
from workbench.lvlm.optimizers import OPTIMIZERS
from workbench.lvlm.reduce import REDUCERS
from workbench.vocabulary.errors import RequestError

NAMED: dict[str, Callable[[str], object]] = {
    "model": resolve,
    "attention": SYSTEMS.__getitem__,
    "kernel": KERNELS.__getitem__,
    "optimizer": OPTIMIZERS.__getitem__,
    "reduce": REDUCERS.__getitem__,
}
"""Fields of a cell that name something, and what finds it or raises RequestError."""


def unknown_names(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with each name among a cell's fields, whatever its other fields are."""
    faults = list[str]()
    for field, find in NAMED.items():
        name = fields.get(field)
        if isinstance(name, str):
            try:
                find(name)
            except RequestError as error:
                faults += error.faults
    return faults
