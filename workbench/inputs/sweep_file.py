"""A sweep from a YAML file."""

import re
from pathlib import Path

from pydantic import ValidationError

from workbench.inputs.yaml_text import read_yaml
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import first_error
from workbench.vocabulary.sweep import Sweep


def load_sweep(path: Path) -> Sweep:
    """Read a YAML sweep: one grid at the top level, or a list of them; ``name`` is optional.

    Raises RequestError with the file, the line or the field, and what would be right.
    """
    fields = read_yaml(path, "sweep")
    if not isinstance(fields, dict):
        raise RequestError(f"{path}: a sweep is a mapping with at least 'visual: [256, 512]'")
    name = fields.pop("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "sweep")
    grids = fields.pop("grids") if "grids" in fields else None
    if grids is not None and fields:
        raise RequestError(f"{path}: {sorted(fields)[0]}: belongs inside one of the grids")
    try:
        return Sweep.model_validate({"name": name, "grids": [fields] if grids is None else grids})
    except ValidationError as error:
        message = first_error(error)
        raise RequestError(f"{path}: {re.sub(r'^grids[.]0[.]', '', message)}") from None
