"""What CUDA kernels allocate beside inputs and outputs, where a trace on shapes cannot see it.

Shapes: grad, q and out [B, H, R, K], k [B, G, C, K].
"""

from torch import Tensor

FLOAT = 4
TILE = 128
"""Rows to which FlashAttention rounds its accumulators."""

MAX_OFFSET = 2**31 - 1
"""The largest offset in bytes that CUDA's reductions address with 32 bits."""


def rounded(size: int, multiple: int) -> int:
    """``size`` up to the next multiple."""
    return -(-size // multiple) * multiple


def transposed_copies(*tensors: Tensor) -> tuple[int, ...]:
    """Bytes of those tensors that torch copies, since their rows do not follow each other.

    The kernels want [B, R, H, K].
    """
    return tuple(t.nbytes for t in tensors if not t.transpose(1, 2).is_contiguous())


def repeated_gradients(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """dK and dV of every query head, where heads share keys and values: summed afterwards.

    One sum after the other; where the gradients of every head are too large for 32-bit offsets,
    it takes an accumulator of the sum's size in float32 (aten/native/cuda/Reduce.cuh,
    AccumulationBuffer).
    """
    batch, heads, _, size = q.shape
    if heads == k.shape[1]:
        return ()
    each = batch * heads * k.shape[2] * size * q.element_size()
    accumulator = (k.numel() * FLOAT,) if each > MAX_OFFSET and q.element_size() < FLOAT else ()
    return (each, each, *accumulator)
