"""A sweep from a YAML file."""

import re
from pathlib import Path

from pydantic import ValidationError

from workbench.inputs.yaml_text import read_yaml
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import all_errors
from workbench.vocabulary.sweep import SINGULAR, Grid, Sweep

FIELDS = (*Grid.model_fields, *SINGULAR)
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
    whole |= {field: fields.pop(field) for field in ("name", "max_minutes") if field in fields}
    grids = fields.pop("grids") if "grids" in fields else None
    if grids is not None and fields:
        raise RequestError(f"{path}: {sorted(fields)[0]}: belongs inside one of the grids")
    try:
        return Sweep.model_validate({**whole, "grids": [fields] if grids is None else grids})
    except ValidationError as error:
        message = all_errors(error, FIELDS)
        own = message if grids is not None else re.sub(r"(^|; )grids[.]0[.]", r"\1", message)
        raise RequestError(f"{path}: {own}") from None
