"""Where CUDA runs an operator otherwise than a trace on shapes does.

A trace sees the tensors that operators return. On a card some operators allocate more while they
run (``temporaries``), and some are one kernel where the ``meta`` device takes several operators
(``card_operators``). Each rule names torch's source (2.11 to 2.13, aten/src/ATen/native); an
operator without one counts as its tensors. Workspaces of cuDNN's convolutions and partial sums of
a layer norm's backward are among what that leaves out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import Library

from workbench.lvlm.kernels.scratch import MAX_OFFSET

aten = torch.ops.aten
FLOAT, LONG = 4, 8
EMBEDDING_SORTS = 3072
"""Rows up to which an embedding's backward needs no sorting (Embedding.cu)."""

_LIBRARY = Library("workbench", "DEF")
_LIBRARY.define("fused_rms_norm(Tensor x, Tensor? weight, int size) -> (Tensor, Tensor)")
_LIBRARY.define(
    "fused_rms_norm_backward(Tensor grad, Tensor x, Tensor rstd, Tensor? weight, bool want_weight)"
    " -> (Tensor, Tensor)"
)


def _rms_norm_shapes(x: Tensor, weight: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """The output, and 1 / RMS of each row in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = x.shape[: x.ndim - size] + (1,) * size
    return torch.empty_like(x), x.new_empty(rows, dtype=wide)


def _rms_norm_backward_shapes(
    grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None, want_weight: bool
) -> tuple[Tensor, Tensor]:
    of_weight = x.new_empty(0) if weight is None or not want_weight else torch.empty_like(weight)
    return torch.empty_like(x), of_weight


_LIBRARY.impl("fused_rms_norm", _rms_norm_shapes, "Meta")
_LIBRARY.impl("fused_rms_norm_backward", _rms_norm_backward_shapes, "Meta")


class _FusedRmsNorm(torch.autograd.Function):
    """``aten::_fused_rms_norm``, which torch has for CUDA and takes apart on ``meta``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, size: int) -> Tensor:
        out, rstd = torch.ops.workbench.fused_rms_norm(x, weight, size)
        ctx.save_for_backward(x, rstd, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, rstd, weight = ctx.saved_tensors
        needs_grad = ctx.needs_input_grad
        dx, dw = torch.ops.workbench.fused_rms_norm_backward(
            grads[0].contiguous(), x, rstd, weight, needs_grad[1]
        )
        return dx if needs_grad[0] else None, dw if needs_grad[1] else None, None


@contextmanager
def card_operators() -> Iterator[None]:
    """Inside, shapes-only workloads run the operators that a card runs."""
    rms_norm, softmax, dropout = F.rms_norm, F.softmax, F.dropout

    def fused_rms_norm(
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        # layer_norm.cpp: fused where weight and input have one data type.
        if weight is not None and weight.dtype != input.dtype:
            return rms_norm(input, normalized_shape, weight, eps)
        return _FusedRmsNorm.apply(input, weight, len(normalized_shape))

    def widening_softmax(input: Tensor, dim: int | None = None, *args: Any, **kw: Any) -> Tensor:
        # SoftMax.cpp: CUDA reads float16 and writes float32 in one kernel; bfloat16 is copied.
        if input.dtype == torch.float16 and kw.get("dtype") == torch.float32 and dim is not None:
            return torch.ops.aten._softmax(input, dim, True)
        return softmax(input, dim, *args, **kw)

    def fused_dropout(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        # Dropout.cpp: one kernel and a mask of bools; other devices multiply by noise.
        if not training or inplace or not 0 < p < 1:
            return dropout(input, p, training, inplace)
        return torch.native_dropout(input, p, True)[0]

    F.rms_norm, F.softmax, F.dropout = fused_rms_norm, widening_softmax, fused_dropout
    try:
        yield
    finally:
        F.rms_norm, F.softmax, F.dropout = rms_norm, softmax, dropout


def temporaries(packet: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    """Bytes of each tensor that an operator allocates on a card beside what it returns.

    Fused attention is not here: its kernels say so themselves (``Kernel.temporaries``).
    """
    rule = TEMPORARIES.get(packet)
    return () if rule is None else rule(*args)


def _softmax_backward(grad: Tensor, output: Tensor, *_: Any) -> tuple[int, ...]:
    """SoftMax.cu, softmax_backward_cuda_out: grad * output, and a copy where grad has strides."""
    copied = () if grad.is_contiguous() else (grad.nbytes,)
    return (grad.numel() * max(grad.element_size(), output.element_size()), *copied)


def _logsumexp(x: Tensor, *_: Any) -> tuple[int, ...]:
    """ReduceOps.cpp, logsumexp_out_impl: exp(x - max), as large as x."""
    return (x.nbytes,)


def _index_put(x: Tensor, indices: Any, values: Tensor, accumulate: bool = False, *_: Any) -> Any:
    """Indexing.cu, index_put_with_sort_kernel: sorted and linear indices; values, if expanded.

    x is copied, and copied back, where the indexed dimension is not the first of all but those of
    one element.
    """
    if not accumulate:
        return ()
    at = next(i for i, index in enumerate(indices) if index is not None)
    temporaries = (4 * LONG * indices[at].numel() * prod(x.shape[:at]),)
    return (*temporaries, x.nbytes, values.nbytes) if prod(x.shape[:at]) > 1 else temporaries


def _embedding_backward(grad: Tensor, indices: Tensor, *_: Any) -> tuple[int, ...]:
    """Embedding.cu and EmbeddingBackwardKernel.cu: above 3,072 rows they are sorted.

    The sum of each run of equal rows is held in float32; at most as many runs as rows.
    """
    rows = indices.numel()
    if rows <= EMBEDDING_SORTS:
        return ()
    return (4 * LONG * rows, FLOAT * rows * grad.shape[-1])


def _narrow_sum(x: Tensor, dims: Any = None, *_: Any) -> tuple[int, ...]:
    """Reduce.cuh, AccumulationBuffer: a float32 accumulator for each narrower sum, in tensors
    that 32-bit offsets do not reach.
    """
    if x.element_size() >= FLOAT or not x.is_floating_point() or x.nbytes <= MAX_OFFSET:
        return ()
    summed = range(x.ndim) if not dims else [dim % x.ndim for dim in dims]
    return (FLOAT * prod(size for dim, size in enumerate(x.shape) if dim not in summed),)


TEMPORARIES: dict[Any, Callable[..., tuple[int, ...]]] = {
    aten._softmax_backward_data: _softmax_backward,
    aten.logsumexp: _logsumexp,
    aten.index_put: _index_put,
    aten.index_put_: _index_put,
    aten._index_put_impl_: _index_put,
    aten.embedding_dense_backward: _embedding_backward,
    aten.sum: _narrow_sum,
    aten.mean: _narrow_sum,
}
