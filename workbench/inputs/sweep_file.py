"""A sweep from a YAML file."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workbench.inputs.yaml_text import read_yaml
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import Place, fault_words
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import (
    AXES,
    CELL_FIELDS,
    RENAMED,
    SINGULAR,
    Grid,
    Sweep,
)

OWN = ("name", "max_minutes")
"""Fields of the sweep itself, beside those of its only grid or beside ``grids``."""
FIELDS = (
    *OWN,
    "grids",
    *Grid.model_fields,
    *SINGULAR,
    *CELL_FIELDS,
    *RENAMED,
    *Protocol.model_fields,
)
"""Names that stand in a sweep's file."""


def load_sweep(path: Path) -> Sweep:
    """Read a YAML sweep: one grid at the top level, or a list of them.

    ``name`` and ``max_minutes`` are the sweep's own, and optional.

    Raises RequestError with the file, the line or the field, and what would be right.
    """
    whole, grids, alone, faults = _read(path)
    try:
        sweep = Sweep.model_validate({**whole, "grids": grids})
    except ValidationError as error:
        faults += fault_words(error, FIELDS, lambda place: _place_words(place, grids, alone))
    if faults:
        raise RequestError(*(f"{path}: {fault}" for fault in faults))
    return sweep


def right_grids(path: Path) -> list[Grid]:
    """Of each grid of a faulty sweep what is right by itself, as ``Grid.part_of`` has it."""
    parts = [Grid.part_of(fields) for fields in _read(path)[1]]
    return [part for part in parts if part is not None]


def _read(path: Path) -> tuple[dict[str, Any], Any, bool, list[str]]:
    """A file's own fields, its grids, whether the file is the only one, and what is misplaced."""
    fields = read_yaml(path, "sweep")
    if not isinstance(fields, dict):
        raise RequestError(f"{path}: a sweep is a mapping with at least 'visual: [256, 512]'")
    whole = {"name": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "sweep"}
    whole |= {field: fields.pop(field) for field in OWN if field in fields}
    if "grids" not in fields:
        return whole, [fields], True, []
    grids = fields.pop("grids")
    misplaced = [f"{name}: belongs inside one of the grids" for name in sorted(fields)]
    return whole, grids, False, misplaced


def _place_words(place: Place, grids: Any, alone: bool) -> str:
    """Where a fault is, as the file names it: ``pass`` of ``grids.0.passes.0``."""
    if place[:1] != ("grids",):
        return ".".join(map(str, place))
    before, rest = place[:2], place[2:]
    if rest and rest[0] in AXES:
        one = next((one for one, axis in SINGULAR.items() if axis == rest[0]), "")
        grid = grids[before[1]]
        name = one if one in grid else str(rest[0])
        rest = (name, *(rest[1:] if isinstance(grid.get(name), list) else rest[2:]))
    return ".".join(map(str, rest if alone else (*before, *rest)))
