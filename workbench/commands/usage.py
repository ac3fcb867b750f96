"""What the parser of the command line refuses: every fault of it at once."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import typer

from workbench.commands.options import wrong_values

# Typer keeps its parser's exceptions to itself, in a different place in every version.
USAGE: Any = typer.BadParameter.__mro__[1]
MOST = 12
"""Faults that are told."""
PLAIN = {
    "Input should be a valid number": "write a number",
    "Input should be a valid integer": "write a whole number",
    "Value error, embedded null byte": "a file's name has no NUL character",
    "Input should be greater than or equal to": "must be at least",
    "Input should be less than or equal to": "must be at most",
}
"""How the parser's words for a value begin, and plain ones in their place."""


def refused(group: Any, error: Any, words: list[str]) -> list[str]:
    """All that is wrong with the words of a command line, and where to read on: a line each.

    ``error`` is the first fault, at which the parser of ``group`` stopped. What it is about is
    left out and the rest parsed again; of what can be parsed, the values of a cell are checked.
    """
    name = next((word for word in words if not word.startswith("-")), None)
    where = "workbench" if name not in group.commands else f"workbench {name}"
    lines: list[str] = []
    wrong: list[str] = []
    while error is not None and len(lines) < MOST:
        param = getattr(error, "param", None)
        if lines and param is not None and param.name in wrong:
            break  # It is missing because its value, which was wrong, was taken out.
        wrong.append("" if param is None else param.name)
        lines.append(_fault(error, words))
        rest = _without(error, words)
        if rest is None or "--help" in rest:
            break
        words = rest
        error, name, values = _parsed(group, words)
        if error is None:
            lines += wrong_values(name, values)
    *others, last = dict.fromkeys(lines)
    return [*others, f"{last}; see '{where} --help'"]


def _parsed(group: Any, words: list[str]) -> tuple[Any, str, dict[str, Any]]:
    """The parser's error, the command's name and its values; nothing is run."""
    name = next(word for word in words if not word.startswith("-"))
    try:
        context = group.make_context("workbench", list(words))
        command = group.get_command(context, name)
        behind = words[words.index(name) + 1 :]
        return None, name, command.make_context(name, behind, parent=context).params
    except USAGE as error:
        return error, name, {}


def _fault(error: Any, words: list[str]) -> str:
    """One fault: the option, what was given, what would be right."""
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        near = [name for name, _ in _near(error)]
        return f"no such option: {option}" + (f"; did you mean {near[0]}?" if near else "")
    param = getattr(error, "param", None)
    for word, value in _values(words):
        if word in getattr(param, "opts", ()):
            return f"{word} {value!r:.60}: {_plain(error.message)}".removesuffix(".")
    text = error.format_message()
    return f"{text[:1].lower()}{text[1:].removesuffix('.')}"


def _plain(message: str) -> str:
    """The parser's words for a value in plain ones, with the bound that they end in."""
    for long, short in PLAIN.items():
        if message.startswith(long):
            bound = message.removeprefix(long) if long.endswith("equal to") else ""
            return f"{short}{bound}"
    return message


def _near(error: Any) -> list[tuple[str, bool]]:
    """Options like the unknown one, nearest first, and whether each is a switch."""
    switches = {
        name: param.is_flag
        for param in error.ctx.command.params
        if param.param_type_name == "option"
        for name in param.opts
    }
    names = get_close_matches(error.option_name, switches, n=2, cutoff=0.7)
    return [(name, switches[name]) for name in names]


def _without(error: Any, words: list[str]) -> list[str] | None:
    """The words but for what ``error`` is about; None where that cannot be told apart."""
    option = getattr(error, "option_name", None)
    of_value: list[str] = list(getattr(getattr(error, "param", None), "opts", ()))
    names = of_value if option is None else [option]
    index = next((i for i, (word, _) in enumerate(_values(words)) if word in names), None)
    if index is None or not words[index].startswith("-"):
        return None
    follows = index + 1 < len(words) and "=" not in words[index]
    if option is not None:  # Unknown, or without its value: is the next word one?
        follows = follows and not words[index + 1].startswith("-")
        near = _near(error) if hasattr(error, "possibilities") else []
        if near:
            follows = follows and not near[0][1]
        elif follows and any(p.param_type_name == "argument" for p in error.ctx.command.params):
            return None
    return words[:index] + words[index + 1 + follows :]


def _values(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each option with the word behind it."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        yield name, value if equals else after
