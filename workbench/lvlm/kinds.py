"""Which layers of a decoder are alike: by what each layer is, not by a word of the config.

A layer's kind is what transformers builds for its index (classes, shapes, window, the kind of its
rotary table) and what the attention system does there (its role). After how many layers the kinds
repeat is how a decoder may be traced, or its weights shared; where nothing repeats, that is all.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from workbench.lvlm.attention import System
from workbench.lvlm.configs import silent

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved

_KEPT = 64
"""Models whose layers are remembered."""


def layer_kinds(model: "Resolved", system: System) -> tuple[Hashable, ...]:
    """The kind of every layer of a model under a system; equal kinds are alike in all costs."""
    return tuple((kind, system.role(i)) for i, kind in enumerate(model_kinds(model)))


def model_kinds(model: "Resolved") -> tuple[Hashable, ...]:
    """The same without a system: what transformers builds for every index."""
    return _built(_Key(model))


def period(kinds: Sequence[Hashable]) -> int:
    """After how many layers kinds repeat; their number where they do not."""
    count = len(kinds)
    return next(
        (p for p in range(1, count) if all(kinds[i] == kinds[i - p] for i in range(p, count))),
        count,
    )


class _Key:
    """A model as far as its layers go: the family and every field of the configuration."""

    def __init__(self, model: "Resolved") -> None:
        self.model = model
        self.text = f"{model.family.model_type} {model.config.to_json_string(use_diff=False)}"

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text


@lru_cache(maxsize=_KEPT)
def _built(key: _Key) -> tuple[Hashable, ...]:
    model = key.model
    found: list[Hashable] = []
    with torch.device("meta"), silent():
        for index in range(model.config.num_hidden_layers):
            layer = model.family.layer(model.config, index)
            parts = model.family.parts(layer)
            modules = tuple((name, type(m).__qualname__) for name, m in layer.named_modules())
            shapes = tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
            found.append((model.layer_type(index), parts.window, parts.softcap, modules, shapes))
    # Comparing numbers instead of long tuples, again and again.
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(kind, len(numbers)) for kind in found)
