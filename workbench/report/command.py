"""The command that repeats a cell."""

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.spec import Cell, make_cell

OPTION_NAMES = {"num_visual": "visual", "num_text": "text"}
"""Fields whose option is called otherwise; every other one is the field's name with hyphens."""


def cell_of(row: Mapping[Any, Any]) -> Cell:
    """The cell of a row of a store's frame; RequestError where the row is not a cell."""
    names = [field.alias or name for name, field in Cell.model_fields.items()]
    return make_cell(**{n: _plain(row[n]) for n in names if _plain(row[n]) is not None})


def _plain(value: Any) -> Any:
    """A cell's value as Python has it: the frame keeps integers as numpy's, None as NaN."""
    if pd.isna(value):
        return None
    plain = value.item() if hasattr(value, "item") else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def command_of(cell: Cell, source: str, device: str) -> str:
    """``workbench measure`` or ``predict`` with every option that differs from its default."""
    words = ["workbench", "measure" if source == "measured" else "predict"]
    changed = cell.model_dump(by_alias=True, exclude_defaults=True)
    for name, value in {"num_visual": cell.num_visual, **changed}.items():
        option = "--" + OPTION_NAMES.get(name, name).replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    return shlex.join([*words, "--device", _device(source, device)])


def _device(source: str, device: str) -> str:
    """A measured device's name is the driver's; on the command line any such card is ``cuda``."""
    return device if source == "predicted" or device == "cpu" else "cuda"
