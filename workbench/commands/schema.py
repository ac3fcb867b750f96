"""``schema``: the JSON Schema of a YAML sweep, for editors."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A file.", show_default="standard output"),
    ] = None,
) -> None:
    """Print the JSON Schema of a YAML sweep: an editor completes and checks by it."""
    from workbench.inputs.files import write_text
    from workbench.inputs.sweep_schema import sweep_schema
    from workbench.lvlm.attention import SYSTEMS
    from workbench.lvlm.kernels import KERNELS
    from workbench.lvlm.models import MODELS
    from workbench.vocabulary.devices import DEVICES

    names: dict[str, Iterable[str]] = {
        "models": MODELS,
        "attentions": SYSTEMS,
        "kernels": KERNELS,
        "device": ["auto", "cpu", "cuda", *(name for name in DEVICES if name != "cpu")],
    }
    text = json.dumps(sweep_schema(names), indent=1, ensure_ascii=False)
    if output is None:
        print(text)
    else:
        write_text(output, "schema", f"{text}\n")
