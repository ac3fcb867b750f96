"""A sweep from a YAML file."""

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from workbench.errors import RequestError
from workbench.files import read_text
from workbench.spec import Sweep, first_error

MAX_BYTES = 256 * 2**10
"""Of a sweep's file: a thousand values of |V| have 10 kB."""


def load_sweep(path: Path) -> Sweep:
    """Read a YAML sweep: one grid at the top level, or a list of them; ``name`` is optional.

    Raises RequestError with the file, the line or the field, and what would be right.
    """
    text = read_text(path, "sweep", MAX_BYTES)
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(f"{path}: {line}not plain YAML: {problem}") from None
    except RecursionError:
        raise RequestError(f"{path}: nested too deeply to be a sweep") from None
    if not isinstance(document, dict):
        raise RequestError(f"{path}: a sweep is a mapping with at least 'visual: [256, 512]'")
    fields = {str(k): v for k, v in document.items()}
    name = fields.pop("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "sweep")
    grids = fields.pop("grids") if "grids" in fields else None
    if grids is not None and fields:
        raise RequestError(f"{path}: {sorted(fields)[0]}: belongs inside one of the grids")
    try:
        return Sweep.model_validate({"name": name, "grids": [fields] if grids is None else grids})
    except ValidationError as error:
        message = first_error(error)
        raise RequestError(f"{path}: {re.sub(r'^grids[.]0[.]', '', message)}") from None
