"""Whole numbers on the command line: as digits, or as 10k, 1.5M, 1G and 1e6."""

from typing import Any

import typer

from workbench.inputs.files import MAX_DIGITS
from workbench.vocabulary.units import count_of

METAVAR = "INTEGER"


def whole_option(help: str, **more: Any) -> Any:
    """An option that takes such a number."""
    return typer.Option(parser=whole, metavar=METAVAR, help=help, **more)


def whole(text: str | int) -> int:
    """The number that an option's text writes; typer.BadParameter, one line, for other texts."""
    if isinstance(text, int):
        return text
    number = count_of(text)
    if number is None and len(text) <= MAX_DIGITS:
        try:
            number = int(text)
        except ValueError:
            number = None
    if number is None:
        raise typer.BadParameter("write a whole number: digits, or 10k, 1.5M, 1e6")
    return number
