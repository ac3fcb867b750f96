"""What transformers says of a field's type, in the words of a config.json."""

import re
from collections.abc import Mapping
from typing import Any

from workbench.lvlm.configs.fields import sections
from workbench.vocabulary.errors import RequestError

WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "dict": "a section in braces",
    "list": "a list",
    "tuple": "a list",
}
"""By Python's name of a type, what stands for it in JSON. None is not named: a field left out."""
ALIASES = {"rope_parameters": "rope_scaling"}
"""By the name that transformers 5 gives a field, that of transformers 4, which it reads too."""
_FIELD = re.compile(r"Validation error for field '(\w+)'")
_ONE = re.compile(r"expected (?:an? )?(\w+), got (\w+)")
_SEVERAL = re.compile(r"doesn't match any type in \((.*?)\)\. Errors", re.DOTALL)
_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>|(\w+)\[")


ACTIVATIONS = ("hidden_act", "hidden_activation", "projector_hidden_act")


def check_activations(name: str, stated: Mapping[str, Any]) -> None:
    """Raise RequestError for a function between layers that transformers does not have."""
    from transformers.activations import ACT2FN

    for where, fields in sections(stated):
        for field in ACTIVATIONS:
            act = fields.get(field)
            if act is not None and (not isinstance(act, str) or act not in ACT2FN):
                raise RequestError(
                    f"model {name!r}: {where}{field} {act!r:.60}: an activation of transformers, "
                    "such as 'gelu'"
                )


def wrong_type(error: BaseException, stated: Mapping[str, Any]) -> str | None:
    """Field, value and what would be right, where ``error`` is of a field's type; else None.

    The field is named with its section, where the file states it with such a value.
    """
    text = str(error)
    field = _FIELD.search(text)
    several, one = _SEVERAL.search(text), _ONE.search(text)
    if field is None or not (several or one):
        return None
    names: list[str] = []
    if several:
        names = [a or b for a, b in _TYPE.findall(several[1])]
    elif one:
        names = [one[1]]
    right = list(dict.fromkeys(WORDS[name] for name in names if name in WORDS))
    found = _stated(field[1], set(names), stated)
    if not right or found is None:
        return None
    where, value = found
    return f"{where} {value!r:.60}: {' or '.join(right)}"


def with_fractions(error: BaseException, stated: dict[str, Any]) -> dict[str, Any] | None:
    """The fields with a whole number read as the fraction that a class asks for; else None.

    Files of transformers 4 have ``1`` where its class today takes ``1.0`` alone.
    """
    field, one = _FIELD.search(str(error)), _ONE.search(str(error))
    several = _SEVERAL.search(str(error))
    names = {a or b for a, b in _TYPE.findall(several[1])} if several else set()
    if field is None or not ("float" in names or (one and one[1] == "float")):
        return None
    read = _read(stated, field[1])
    return None if read == stated and repr(read) == repr(stated) else read


def _read(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key: _read(value, name)
        if isinstance(value, Mapping)
        else float(value)
        if key == name and type(value) is int and abs(value) < 2**53
        else value
        for key, value in fields.items()
    }


def _stated(name: str, types: set[str], stated: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The first field of that name whose value is of none of the types."""
    for where, fields in sections(stated):
        for field in (name, ALIASES.get(name, name)):
            value = fields.get(field)
            if value is not None and type(value).__name__ not in types:
                return f"{where}{field}", value
    return None
