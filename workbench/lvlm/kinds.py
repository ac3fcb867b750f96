"""Which layers of a decoder are alike: by what each layer is, not by a word of the config.

A layer's kind is what transformers builds for its index (classes, shapes, window, the kind of its
rotary table) and what the attention system does at its place (role, tokens, inserted or not).
Where kinds repeat, a decoder may be traced from a few layers, or its weights shared.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from workbench.lvlm.configs import silent
from workbench.lvlm.place import Place

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved

_KEPT = 64
"""Models whose layers are remembered."""


def layer_kinds(model: "Resolved", places: Iterable[Place]) -> tuple[Hashable, ...]:
    """The kind of the layer at every place; equal kinds are alike in all costs."""
    own = model_kinds(model)
    return tuple((own[place.index], *place.kind) for place in places)


def model_kinds(model: "Resolved") -> tuple[Hashable, ...]:
    """What transformers builds for every index of a model, without a system."""
    return _built(_Key(model))


@dataclass(frozen=True)
class Stretch:
    """The longest run of layers in which a unit of layers repeats.

    Of ``total`` layers, ``count`` units of ``unit`` layers from layer ``start`` on; what stands
    before and after them is like nothing else.
    """

    start: int
    unit: int
    count: int
    total: int


def stretch_of(kinds: Sequence[Hashable], grouped: int = 1) -> Stretch:
    """Where layers repeat, so that leaving all units but one out leaves the fewest layers.

    Units are whole groups of ``grouped`` layers (those under one checkpoint), counted from the
    first layer. Where nothing repeats, one unit of all layers.
    """
    groups = [tuple(kinds[i : i + grouped]) for i in range(0, len(kinds), grouped)]
    total = len(kinds)
    best, saved = Stretch(0, total, 1, total), 0
    for unit in range(1, len(groups) // 2 + 1):
        start = 0
        while start + 2 * unit <= len(groups):
            end = start + unit
            while end < len(groups) and groups[end] == groups[end - unit]:
                end += 1
            count = (end - start) // unit
            if (count - 1) * unit * grouped > saved:
                saved = (count - 1) * unit * grouped
                best = Stretch(start * grouped, unit * grouped, count, total)
            start = max(start + 1, end - unit + 1)
    return best


def stretches_of(
    kinds: Sequence[Hashable], grouped: int = 1, kept: int = 3
) -> tuple[Stretch, ...]:
    """The stretches, one after another, of which leaving all but ``kept`` units out leaves the
    fewest layers; none where nothing repeats so often.

    Units are whole groups, as ``stretch_of`` says.
    """
    groups = [tuple(kinds[i : i + grouped]) for i in range(0, len(kinds), grouped)]
    count = len(groups)
    # saved[i]: the most groups that the groups from i on can do without; and by which stretch.
    saved: list[int] = [0] * (count + 1)
    first: list[tuple[int, int] | None] = [None] * count
    same = dict.fromkeys(range(1, count // (kept + 1) + 1), 0)
    for start in reversed(range(count)):
        saved[start] = saved[start + 1]
        for unit in same:
            alike = start + unit < count and groups[start] == groups[start + unit]
            same[unit] = same[unit] + 1 if alike else 0
            for times in range(kept + 1, same[unit] // unit + 2):
                without = (times - kept) * unit + saved[start + unit * times]
                if without > saved[start]:
                    saved[start], first[start] = without, (unit, times)
    stretches: list[Stretch] = []
    at = 0
    while at < count:
        best = first[at]
        if best is None:
            at += 1
            continue
        unit, times = best
        stretches.append(Stretch(at * grouped, unit * grouped, times, len(kinds)))
        at += unit * times
    return tuple(stretches)


def shortened(stretches: Iterable[Stretch], total: int, count: int) -> tuple[int, ...]:
    """The indices of ``total`` layers, with only ``count`` units of each stretch left."""
    left_out: set[int] = set()
    for each in stretches:
        start = each.start + count * each.unit
        left_out.update(range(start, each.start + each.count * each.unit))
    return tuple(index for index in range(total) if index not in left_out)


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
    kinds: list[Hashable] = []
    with torch.device("meta"), silent():
        for index in range(model.config.num_hidden_layers):
            layer = model.family.layer(model.config, index)
            parts = model.family.parts(layer)
            modules = tuple((name, type(m).__qualname__) for name, m in layer.named_modules())
            shapes = tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
            own = model.family.variant(model.config, index)
            kind = model.layer_type(index), parts.window, parts.softcap, modules, shapes, own
            kinds.append(kind)
    # Comparing numbers instead of long tuples, again and again.
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(kind, len(numbers)) for kind in kinds)
