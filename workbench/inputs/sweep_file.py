"""A sweep from a YAML file."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workbench.inputs.yaml_text import read_yaml
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import Place, all_errors
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
    fields = read_yaml(path, "sweep")
    if not isinstance(fields, dict):
        raise RequestError(f"{path}: a sweep is a mapping with at least 'visual: [256, 512]'")
    whole = {"name": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "sweep"}
    whole |= {field: fields.pop(field) for field in OWN if field in fields}
    alone = "grids" not in fields
    grids = [fields] if alone else fields.pop("grids")
    faults = (
        [] if alone else [f"{name}: belongs inside one of the grids" for name in sorted(fields)]
    )
    try:
        sweep = Sweep.model_validate({**whole, "grids": grids})
    except ValidationError as error:
        message = all_errors(error, FIELDS, lambda place: _place_words(place, grids, alone))
        faults.append(message.removeprefix("the document: "))
    if faults:
        raise RequestError(f"{path}: {'; '.join(faults)}")
    return sweep


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
