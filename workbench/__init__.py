"""What does a visual token cost? Probes and scaling analysis for vision-language models.

The Python interface: ``from workbench import Cell, predict``. Each name of ``__all__`` is loaded
when it is first used, so that importing this package costs next to nothing; torch is imported by
the functions that need it, when they are called. No function has the name of a package, which
would take its place as soon as it is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.version import __version__ as __version__

if TYPE_CHECKING:
    from workbench.interface import (
        limit,
        measure,
        open_store,
        plot,
        predict,
        run_sweep,
        write_report,
    )
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.errors import Failure, RequestError
    from workbench.vocabulary.protocol import Protocol
    from workbench.vocabulary.record import Record, Status
    from workbench.vocabulary.sweep import Grid, Sweep, geometric

__all__ = [
    "Cell",
    "Failure",
    "Grid",
    "Protocol",
    "Record",
    "RequestError",
    "Status",
    "Sweep",
    "geometric",
    "limit",
    "measure",
    "open_store",
    "plot",
    "predict",
    "run_sweep",
    "write_report",
]

_MODULES = {
    "vocabulary.errors": ("Failure", "RequestError"),
    "interface": (
        "limit",
        "measure",
        "open_store",
        "plot",
        "predict",
        "run_sweep",
        "write_report",
    ),
    "vocabulary.cell": ("Cell",),
    "vocabulary.protocol": ("Protocol",),
    "vocabulary.record": ("Record", "Status"),
    "vocabulary.sweep": ("Grid", "Sweep", "geometric"),
}
"""The modules that define the names of the interface."""


def __getattr__(name: str) -> Any:
    """A name of the interface, loaded at its first use (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"workbench.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
