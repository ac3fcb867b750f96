"""What CUDA kernels allocate beside inputs and outputs, where a trace on shapes cannot see it.

Shapes: grad, q and out [B, H, R, K], k [B, G, C, K].
"""

from torch import Tensor

FLOAT = 4
TILE = 128
"""Rows to which FlashAttention rounds its accumulators."""


def rounded(size: int, multiple: int) -> int:
    """``size`` up to the next multiple."""
    return -(-size // multiple) * multiple


def transposed_copies(*tensors: Tensor) -> tuple[int, ...]:
    """Bytes of those tensors that torch copies, since their rows do not follow each other.

    The kernels want [B, R, H, K].
    """
    return tuple(t.nbytes for t in tensors if not t.transpose(1, 2).is_contiguous())


def repeated_gradients(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """dK and dV of every query head, where heads share keys and values: summed afterwards."""
    batch, heads, _, size = q.shape
    if heads == k.shape[1]:
        return ()
    return (batch * heads * k.shape[2] * size * q.element_size(),) * 2
