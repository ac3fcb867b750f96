"""Naive float64 definitions of attention systems, one file each, found by the system's name.

A file may have ``SETTINGS``, the settings under which a small sequence meets all of the system,
and ``outputs(workload)``, the definition's outputs for the workload's own inputs at scope layer.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def definition(system: str) -> ModuleType | None:
    """The file of that system; None where ``tests.lvlm.oracle`` defines it."""
    name = f"{__name__}.{system}"
    return None if find_spec(name) is None else import_module(name)


def assert_refused(error: Exception, system: str, family: str) -> None:
    """A system may refuse the families that its definition names, and says which feature."""
    assert family in definition(system).REFUSED
    assert system in str(error)
    assert family.removesuffix("_text") in str(error)


def step_settings_of(system: str) -> str | None:
    """Those under which a decode step is a row of the prefill."""
    return getattr(definition(system), "STEP_SETTINGS", settings_of(system))


def settings_of(system: str) -> str | None:
    """The settings under which the system is tested; None are its defaults."""
    return getattr(definition(system), "SETTINGS", None)
