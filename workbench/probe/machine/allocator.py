"""The setting of CUDA's caching allocator: a process's environment decides it, at its start."""

import os
from collections.abc import Mapping

from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

DEFAULT = "default"
CONFIGURATIONS = {DEFAULT: None, "expandable_segments": "expandable_segments:True"}
"""A cell's word and what torch is told."""
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What torch reads it from; from 2.9 on the first goes before the second."""


def setting_of(cell: Cell) -> str:
    """The cell's setting."""
    return cell.allocator


def variables_of(setting: str, there: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process's environment must say for a setting.

    Other parts of a configuration that ``there`` has stay; for the default all of it does.
    """
    option = CONFIGURATIONS[setting]
    if option is None:
        return {}
    name = option.partition(":")[0]
    configured = next((there[variable] for variable in VARIABLES if there.get(variable)), "")
    others = [
        part for part in configured.split(",") if part and part.partition(":")[0].strip() != name
    ]
    return dict.fromkeys(VARIABLES, ",".join([*others, option]))


def check_allocator(cell: Cell, place: str) -> None:
    """Raise RequestError where nothing on that device has the cell's setting."""
    setting = setting_of(cell)
    if place == "cpu" and setting != DEFAULT:
        raise RequestError(
            f"allocator {setting!r}: is a setting of CUDA's caching allocator; a CPU's memory "
            "comes from the C library; use --device cuda"
        )


def allocator_flags(cell: Cell, there: Mapping[str, str] = os.environ) -> list[str]:
    """What a record measured on a card in this process has to say of its allocator.

    Raises RequestError where the process was started without the cell's setting.
    """
    setting = setting_of(cell)
    option = CONFIGURATIONS[setting]
    configured = next((there[variable] for variable in VARIABLES if there.get(variable)), "")
    if option is None:
        return [f"allocator: configured by the environment: {configured}"] if configured else []
    if option not in (part.strip() for part in configured.split(",")):
        raise RequestError(
            f"allocator {setting!r}: this process was started without it; set "
            f"{VARIABLES[0]}={option} for every rank"
        )
    return []
