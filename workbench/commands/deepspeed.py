"""``export --deepspeed-config``: a cell as the configuration that deepspeed reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.inputs.files import parse_json, read_text, shown, write_text
from workbench.inputs.yaml_text import MAX_BYTES as MAX_YAML
from workbench.inputs.yaml_text import parse_yaml
from workbench.vocabulary.errors import RequestError, Unsupported

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell

MAX_BYTES = 2**20
"""Bytes of a cell's file: what ``predict --json`` prints has some 10 kB."""


def write_config(named: str, store: Path | None, output: Path | None) -> str | None:
    """Write the configuration of a cell to ``output``; returned as text where that is None.

    ``named`` is a file (what ``predict --json`` printed, or a cell's fields as YAML or JSON) or a
    key in ``store``. Raises RequestError.
    """
    from workbench.probe.counting.trace import trace
    from workbench.probe.ranks.deepspeed_config import whole_config
    from workbench.vocabulary.agreement import check_states

    cell = _cell(named, store)
    if not cell.optimizes:
        raise RequestError(
            f"deepspeed-config {named}: pass {cell.pass_} of scope {cell.scope} has no optimizer; "
            "give a train pass of scope decoder or lvlm"
        )
    check_states(cell)
    try:
        parameters = trace(cell).parameters
    except Unsupported as error:
        raise RequestError(f"deepspeed-config {named}: {error}") from None
    text = json.dumps(whole_config(cell, parameters), indent=2) + "\n"
    if output is None:
        return text
    write_text(output, "output", text)
    return None


def _cell(named: str, store: Path | None) -> "Cell":
    from workbench.vocabulary.cell import make_cell

    if store is not None:
        return _stored(named, store)
    try:
        text = read_text(named, "deepspeed-config", MAX_BYTES)
    except RequestError as error:
        raise RequestError(f"{error}; for a key, name its store") from None
    what = f"deepspeed-config {shown(named)}"
    try:
        document: Any = parse_json(text, what)
    except RequestError:
        if len(text) > MAX_YAML:
            raise
        document = parse_yaml(text, what)
    if isinstance(document, dict) and isinstance(document.get("cell"), dict):
        document = document["cell"]
    if not isinstance(document, dict):
        raise RequestError(f"{what}: holds no fields of a cell")
    return make_cell(**document)


def _stored(key: str, path: Path) -> "Cell":
    from workbench.store import Store

    with Store.open(path) as store:
        cells = {record.cell.key: record.cell for _, record in store.items()}
    matches = [cell for name, cell in cells.items() if key and name.startswith(key)]
    if len(matches) != 1:
        how = "no cell has" if not matches else f"{len(matches)} cells have"
        raise RequestError(f"deepspeed-config {key!r}: {how} that key in {path}")
    return matches[0]
