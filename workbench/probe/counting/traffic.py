"""Bytes that an operator moves, from its shapes: inputs read once, outputs written once."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

MOVES_NOTHING = frozenset(
    {
        aten._unsafe_view,
        aten.empty,
        aten.empty_like,
        aten.empty_strided,
        aten.empty_permuted,
        aten.new_empty,
        aten.new_empty_strided,
        aten.detach,
        aten.alias,
    }
)
"""Operators that make a tensor without touching its bytes, though torch calls them no views."""
GATHERS = frozenset({aten.embedding, aten.index, aten.index_select, aten.gather})
"""Operators that read of their first input only the rows that they return."""


EXPERTS: "ContextVar[int | None]" = ContextVar("experts", default=None)
"""How many experts of a layer all rows are sent to; None where they are spread evenly."""


def extent(tensor: Tensor) -> int:
    """Bytes that reading or writing the tensor touches: an expanded dimension is touched once."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or size == 0 else 1
    return count * tensor.element_size()


def bytes_of(packet: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Bytes that one call moves; ``inputs`` and ``outputs`` are its tensors, in order."""
    if packet in MOVES_NOTHING:
        return 0
    written = sum(map(extent, outputs))
    if packet is aten._grouped_mm and inputs[0].ndim == 2 and inputs[1].ndim == 3:
        rows, groups = inputs[0].shape[0], inputs[1].shape[0]
        # Of groups that no row meets nothing is read; rows are spread over as many as they can,
        # unless all go the same way.
        met = extent(inputs[1]) // groups * min(rows, EXPERTS.get() or groups)
        return written + extent(inputs[0]) + met + sum(map(extent, inputs[2:]))
    if packet in GATHERS:
        return 2 * written + sum(map(extent, inputs[1:]))
    return written + sum(map(extent, inputs))
