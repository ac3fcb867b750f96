"""The command that repeats a cell."""

import shlex

from workbench.spec import Cell

OPTION_NAMES = {"num_visual": "visual", "num_text": "text", "settings": "set"}
"""Fields whose option is called otherwise; every other one is the field's name with hyphens."""


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
