"""FLOPs of one operator from its shapes: torch's own formulas, and ours for fused attention.

torch's counter knows no formula for SDPA on CPU and asserts under GQA, so every attention operator
gets ours: a forward is 2 matmuls over all query-key pairs, a fused backward 5 (it recomputes the
scores).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

MATMULS = {
    aten._scaled_dot_product_flash_attention_for_cpu: 2,
    aten._scaled_dot_product_flash_attention: 2,
    aten._scaled_dot_product_efficient_attention: 2,
    aten._scaled_dot_product_cudnn_attention: 2,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: 5,
    aten._scaled_dot_product_flash_attention_backward: 5,
    aten._scaled_dot_product_efficient_attention_backward: 5,
    aten._scaled_dot_product_cudnn_attention_backward: 5,
}
"""Matmuls over the query-key pairs of each fused attention operator."""

FUSED_BACKWARDS = tuple(packet for packet, matmuls in MATMULS.items() if matmuls == 5)

BATCHED = (aten.bmm, aten.baddbmm)
"""Operators that only attention uses: linear layers of 3-D inputs run as mm or addmm."""

PRODUCTS = (aten.mm, aten.addmm, *BATCHED)
"""Operators whose FLOPs are of their tensors' shapes alone."""


def operator_flops(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """FLOPs of one call, dense, 2 a multiply-add; 0 for an operator without matmuls."""
    if packet in PRODUCTS:
        return _product_flops(packet, tuple([x.shape for x in args if isinstance(x, Tensor)]))
    if packet in MATMULS:
        q, k = _query_and_key(args, packet)
        batch, heads, rows, size = q.shape
        return MATMULS[packet] * 2 * batch * heads * rows * k.shape[2] * size
    if packet is aten._grouped_mm:
        # Every row of the one operand meets one group of the other, or both are cut alike.
        left, right = args[:2]
        return 2 * left.shape[-2] * left.shape[-1] * right.shape[-1]
    if packet is aten.linalg_solve_triangular:
        rows, right = args[1].shape[-2:]
        return args[1].numel() // right * rows * right
    if packet is aten.convolution_backward and args[9] > 1:
        # torch's formula multiplies every channel with every other.
        grad, _, weight = args[:3]
        each = 2 * grad.numel() * weight[0].numel()
        return each * sum(args[10][:2])
    formula: Callable[..., int] | None = flop_registry.get(packet)
    return int(formula(*args, **kwargs, out_val=out)) if formula is not None else 0


@lru_cache(maxsize=4096)
def _product_flops(packet: Any, shapes: tuple[torch.Size, ...]) -> int:
    """By torch's formula, which is asked once: it takes longer than most operators."""
    # A byte an element: any tensor that there is has a stand-in.
    tensors = [torch.empty(shape, dtype=torch.uint8, device="meta") for shape in shapes]
    return int(flop_registry[packet](*tensors, out_val=None))


def is_attention(packet: Any) -> bool:
    """Whether the operator multiplies queries with keys or probabilities with values."""
    return packet in MATMULS or packet in BATCHED


def _query_and_key(args: tuple[Any, ...], packet: Any) -> tuple[Tensor, Tensor]:
    first = 1 if MATMULS[packet] == 5 else 0  # A backward's first argument is the gradient.
    return args[first], args[first + 1]
