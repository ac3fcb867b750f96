"""The JSON Schema of a YAML sweep, made from the fields themselves: editors complete by it.

It says what a field may be. What fields say together (a chunk without D-Attn) is checked when the
sweep is read, and in places a schema takes more than a sweep does, never less.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from workbench.inputs.sweep_file import OWN
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.sweep import AXES, CELL_FIELDS, RENAMED, SINGULAR, Grid, Sweep
from workbench.vocabulary.units import COUNT_PATTERN, SHORT_DTYPES

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
COUNT = {"type": "string", "pattern": rf"^\s*{COUNT_PATTERN}\s*$"}
"""A whole number in short: ``10k``, ``1.5M``, ``1e6``."""


def sweep_schema(names: Mapping[str, Iterable[str]] | None = None) -> Schema:
    """The schema of a sweep's document: one grid at its top level, or a list of ``grids``.

    ``names`` are those that a field is completed with (``models``, ``attentions``, ``kernels``,
    ``device``); another text is allowed there, too: a hub id, a folder, a file.
    """
    whole, grid, cell = (
        kind.model_json_schema(by_alias=True, mode="validation") for kind in (Sweep, Grid, Cell)
    )
    definitions = {**grid.pop("$defs", {}), **cell.pop("$defs", {})}
    offered = {name: list(values) for name, values in (names or {}).items()}
    fields: Schema = {}
    for name, field in grid["properties"].items():
        one = _offer(field["items"] if name in AXES else field, offered.get(name))
        fields[name] = _one_or_many(_widened(one), field) if name in AXES else one
    options = {
        name: _offer(_widened(field), offered.get(SINGULAR.get(name, name)))
        for name, field in cell["properties"].items()
        if name != "num_visual"
    }
    options["settings"] = {"description": "name=value, a list of them, or a mapping"}
    options |= {one: options[field] for one, field in RENAMED.items()}
    partial = {"type": "object", "properties": options, "additionalProperties": False}
    fields["options"] = _one_or_many({"$ref": "#/$defs/Options"}, grid["properties"]["options"])
    fields |= {one: fields[many] for one, many in SINGULAR.items()}
    fields |= {name: options[name] for name in (*CELL_FIELDS, *RENAMED)}
    closed: Schema = {"type": "object", "additionalProperties": False, "required": ["visual"]}
    own = {name: whole["properties"][name] for name in OWN}
    grids = {"type": "array", "items": {"$ref": "#/$defs/Grid"}, "minItems": 1}
    several = {"type": "object", "properties": {**own, "grids": grids}, "required": ["grids"]}
    return {
        "$schema": DIALECT,
        "title": "A sweep of the visual-token workbench",
        "anyOf": [
            {**closed, "properties": {**own, **fields}},
            {**several, "additionalProperties": False},
        ],
        "$defs": {
            **definitions,
            "Options": partial,
            "Grid": {**closed, "properties": fields, "description": "A product of axes."},
        },
    }


def _one_or_many(one: Schema, axis: Schema) -> Schema:
    """An axis: a value, or a list of them."""
    words = _part(axis, ("description", "default"))
    return {**words, "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _widened(field: Schema) -> Schema:
    """The field with what is read as its values too: short numbers and dtypes."""
    if field.get("type") == "integer":
        words = _part(field, ("description", "default", "title"))
        return {**words, "anyOf": [{k: v for k, v in field.items() if k not in words}, COUNT]}
    if "bfloat16" in field.get("enum", ()):
        return {**field, "enum": [*field["enum"], *SHORT_DTYPES]}
    if "anyOf" in field:
        return {**field, "anyOf": [_widened(each) for each in field["anyOf"]]}
    return deepcopy(field)


def _part(field: Schema, names: Iterable[str]) -> Schema:
    return {name: field[name] for name in names if name in field}


def _offer(field: Schema, names: list[str] | None) -> Schema:
    """The field with names that an editor offers; any other text stays right."""
    if not names:
        return field
    return {**field, "anyOf": [{"enum": names}, {"type": "string", "minLength": 1}]}
