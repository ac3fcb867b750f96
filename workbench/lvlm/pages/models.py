"""docs/models.md: every family and published size, what is special of it, what is refused.

``python -m workbench.lvlm.pages.models`` prints the page; a test holds the two together.
"""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from workbench.lvlm.configs.refused import REFUSED
from workbench.lvlm.models import FAMILIES, MODELS, PAPER, Family, Resolved, resolve
from workbench.lvlm.towers import TOWERS, own_tower, tower_of

HEAD = """# Models

What is served: the names of the catalogue, and any folder or hub id whose config.json has one of
these model types, of whatever sizes. Decoder, tower and projector are transformers' own classes;
parameters of scope `lvlm` equal those of transformers' whole model, less an audio tower that is
left out, which a flag says. Heads are those of queries and of keys and values; tokens are those of
an image that stands for |V| where no file is shown. `workbench list models` prints the names.

The fields of a name of the catalogue are written down here after the config.json that it names;
they are not fetched. Where a figure decides, give the hub id or a folder in place of the name:
then the file itself is read.

This page is made from the code: `python -m workbench.lvlm.pages.models`.
"""
TEXT = """## Text families

The decoders, also inside of a wrapper above. At scope `lvlm` a text model of these takes the tower
of the D-Attn paper, SigLIP so400m/14 at 384 pixels with an MLP: 729 tokens an image.
"""
NOT_SERVED = """## Refused by name

One line says so, with the reason, for a folder or hub id of these types. Any other type is refused
as unknown, and a tower that scope `lvlm` does not have names those that it has; `--tower siglip`
asks for the paper's.
"""
COLUMNS = ("model", "layers", "width", "heads", "MLP", "vocabulary", "tokens", "published in")


def page() -> str:
    """The whole page, Markdown."""
    names = {name: resolve(name) for name in MODELS}
    return "\n".join([HEAD, *_towers(names), *_families(names), *_refused()])


def _towers(names: dict[str, Resolved]) -> Iterator[str]:
    """A section for each tower of its own: its types, what it does, its published models."""
    yield "## With a tower of their own\n"
    by_tower: dict[str, list[str]] = {}
    for name, model in names.items():
        by_tower.setdefault(own_tower(model), []).append(name)
    for tower, kind in sorted(TOWERS.items()):
        if tower == PAPER:
            continue
        yield f"### {_types(kind.serves)}\n"
        yield f"{_doc(kind.__module__)}\n"
        names_of = by_tower.get(tower, [])
        yield f"Images and video become tokens by the front end `{kind.front_end}`.\n"
        if names_of:
            yield _table(names_of, names)


def _types(serves: Any) -> str:
    words = ((outer, ", ".join(filter(None, kinds))) for outer, kinds in serves.items())
    return ", ".join(f"`{outer}` ({kinds})" for outer, kinds in words)


def _families(names: dict[str, Resolved]) -> Iterator[str]:
    """A section for each text family: what is special of its layer, its published text models."""
    yield TEXT
    for key, family in sorted(FAMILIES.items()):
        yield f"### `{family.model_type}`\n"
        yield f"{_doc(_module(key, family))}\n"
        families = [
            name
            for name, model in names.items()
            if model.family is family and own_tower(model) == PAPER
        ]
        if families:
            yield _table(families, names)


def _module(key: str, family: Family) -> str:
    """The module of a family: that of its name, or of its class."""
    path = f"{Family.__module__}.{key}"
    return path if find_spec(path) else type(family).__module__


def _doc(module: str) -> str:
    """A module's docstring, with Markdown's back quotes."""
    source = inspect.getsource(import_module(module))
    return (ast.get_docstring(ast.parse(source)) or "").replace("``", "`")


def _table(listed: list[str], names: dict[str, Resolved]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name in listed:
        config: Any = names[name].config
        groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        cells = (
            f"`{name}`",
            f"{config.num_hidden_layers}",
            f"{config.hidden_size:,}",
            f"{config.num_attention_heads} / {groups}",
            _mlp(config),
            f"{config.vocab_size:,}",
            f"{tower_of(names[name]).tokens_each:,}",
            MODELS[name].source,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _mlp(config: Any) -> str:
    """The inner width of an MLP; of experts alone, how many and theirs."""
    width = getattr(config, "intermediate_size", None)
    if isinstance(width, list):
        return " and ".join(f"{each:,}" for each in sorted(set(width)))
    if width is not None and getattr(config, "use_double_wide_mlp", False):
        return f"{width:,} and {2 * width:,}"
    if width is not None:
        return f"{width:,}"
    return f"{config.num_experts} × {config.moe_intermediate_size:,}"


def _refused() -> Iterator[str]:
    yield NOT_SERVED
    yield "| model type | what no part of the workbench expresses |\n|---|---|"
    for kind, reason in REFUSED.items():
        yield f"| `{kind}` | {reason} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
