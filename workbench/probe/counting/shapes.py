"""Running a workload on shapes alone: tensors of the ``meta`` device, the operators of the CPU.

Nothing that torch has is quicker: fake tensors take several times as long. The one difference is
that torch picks its composite attention for meta tensors; here SDPA goes to the operator that it
picks on the CPU, the fused one where there is one. And torch's distributions, which a layer of
Gemma 3n asks for a quantile, do not look at the values of their parameters. A test holds this
against fake tensors, operator by operator, byte by byte.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

DEVICE = "meta"


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    assert dropout_p == 0.0, "no attention dropout in a workload"
    if not enable_gqa and key.shape[1] == 1 < query.shape[1]:
        # sdp_utils_cpp.h, check_batch_size_and_num_heads_dense: no fused operator takes one head
        # for many, on the CPU or CUDA.
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale
        )[0]
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(
            f"an attention of {query.shape[1]} heads has keys of {key.shape[1]}: it needs as many"
        )
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        zero, low = (
            torch.scalar_tensor(value, dtype=query.dtype, device=query.device)
            for value in (0.0, float("-inf"))
        )
        attn_mask = torch.where(attn_mask, zero, low)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


@contextmanager
def shapes_only() -> Iterator[str]:
    """SDPA runs the fused operator inside, also recomputed; yields the device to build on."""
    public = F.scaled_dot_product_attention
    validates = Distribution._validate_args
    F.scaled_dot_product_attention = _sdpa
    Distribution.set_default_validate_args(False)
    try:
        yield DEVICE
    finally:
        F.scaled_dot_product_attention = public
        Distribution.set_default_validate_args(validates)
