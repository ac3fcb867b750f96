"""What stands in for a kernel that a prediction cannot trace: the same inputs and outputs.

A fused kernel's memory is its inputs, its output and a float32 log-sum-exp; flash attention for
CPU has those, so a prediction traces that operator in its place. FLOPs are the dense count anyway.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._guards import detect_fake_mode

SHAPES = "workbench_shapes"
REPEATED = "workbench_repeated_kv"
MATH = "workbench_math"
MASKED = "workbench_masked"


def tracing(device: torch.device) -> bool:
    """Whether tensors there are shapes only: nothing is computed, for a prediction."""
    return device.type == "meta" or detect_fake_mode() is not None


def sentence(kernel: str) -> str:
    """The flag of a record whose kernel was modelled."""
    return (
        f"kernel {kernel!r} is modelled by its shapes (inputs, output, float32 log-sum-exp), "
        "not by tracing its operators"
    )


def register() -> None:
    """Make these functions known to transformers; once more changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(SHAPES, by_shapes)
    AttentionInterface.register(REPEATED, repeated)
    AttentionInterface.register(MATH, math)
    AttentionInterface.register(MASKED, masked)


def by_shapes(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """The fused operator's shapes, whatever mask or soft-cap the kernel would apply.

    query [B, H, R, K], key [B, G, C, K] and value [B, G, C, W] -> [B, R, H, W]. Only in a
    prediction.
    """
    assert tracing(query.device), "numbers of this function mean nothing"
    width, padding = value.shape[-1], query.shape[-1] - value.shape[-1]
    if padding:  # As transformers pads for a package (integrations/flash_attention.py).
        value = F.pad(value, (0, padding))
    out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, query.shape[2] == key.shape[2], scale=options.get("scaling")
    )
    return out.transpose(1, 2).contiguous()[..., :width], None


def repeated(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """SDPA with keys and values repeated to the query's heads, for a back end without GQA."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=attention_mask is None and query.shape[2] == key.shape[2],
        scale=options.get("scaling"),
    )
    return out.transpose(1, 2).contiguous(), None


def masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
) -> tuple[Tensor, None]:
    """The fused operator that CUDA has for a mask, of which it makes a bias. Only in a prediction.

    As transformers calls SDPA with one: keys and values are repeated to the query's heads.
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    bias = torch.zeros_like(attention_mask, dtype=query.dtype)
    out, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        bias.expand(*query.shape[:3], key.shape[2]),
        query.requires_grad,
        scale=options.get("scaling"),
    )
    return out.transpose(1, 2).contiguous(), None


def math(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """What SDPA's math back end runs, by the operator that torch composes it of."""
    out, _ = torch.ops.aten._scaled_dot_product_attention_math(
        query,
        key,
        value,
        attention_mask,
        0.0,
        attention_mask is None and query.shape[2] == key.shape[2],
        scale=options.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None
