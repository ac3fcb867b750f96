"""How the parts of a layer are found, of the forms that several families share.

Shapes: B batch, S tokens, D hidden size, K head size, R those of its values that are rotated.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.parts import LayerParts, Rope
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.pairless import Linear


def rotate_half(x: Tensor, cos_bsk: Tensor, sin_bsk: Tensor) -> Tensor:
    """RoPE in the half-rotated form of Llama and its kin; x is [B, heads, S, K]."""
    left, right = x.chunk(2, -1)
    turned = torch.cat((-right, left), -1)
    return x * cos_bsk.unsqueeze(1) + turned * sin_bsk.unsqueeze(1)


def rotate_first(x: Tensor, cos_bsr: Tensor, sin_bsr: Tensor) -> Tensor:
    """The same over the first R of a head's values, the others left as they are."""
    size = cos_bsr.shape[-1]
    turned = rotate_half(x[..., :size], cos_bsr, sin_bsr)
    return torch.cat((turned, x[..., size:]), -1)


def as_it_is(x: Tensor, cos_bsk: Tensor, sin_bsk: Tensor) -> Tensor:
    """What a layer without positions does to queries and keys."""
    return x


def llama_like(layer: Any, rope: Rope = rotate_half) -> LayerParts:
    """Parts of a layer with two norms: Llama, Mistral, Qwen2 and Qwen2.5-VL."""
    return sandwiched(layer, rope, None, layer.post_attention_layernorm, None)


def gemma_like(layer: Any, rope: Rope = rotate_half) -> LayerParts:
    """Parts of a layer with four norms: Gemma 2 and 3."""
    return sandwiched(
        layer,
        rope,
        layer.post_attention_layernorm,
        layer.pre_feedforward_layernorm,
        layer.post_feedforward_layernorm,
    )


def sandwiched(
    layer: Any,
    rope: Rope,
    post_attention_norm: nn.Module | None,
    mlp_norm: nn.Module,
    post_mlp_norm: nn.Module | None,
) -> LayerParts:
    """Parts of a layer whose norms after the attention are these; None where it has none."""
    attention, config = layer.self_attn, layer.self_attn.config
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=post_attention_norm,
        mlp_norm=mlp_norm,
        mlp=layer.mlp,
        post_mlp_norm=post_mlp_norm,
        q_norm=getattr(attention, "q_norm", None),
        k_norm=getattr(attention, "k_norm", None),
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        softcap=getattr(attention, "attn_logit_softcapping", None),
        window=window_of(attention),
        rope=rope,
        experts=_experts(layer.mlp),
    )


def linear_like(layer: Any, attention: Any, sizes: Linear) -> LayerParts:
    """Parts of a layer with two norms whose ``attention`` has no keys and values.

    Heads are those of its values and of its keys; nothing of it is rotated.
    """
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=None,
        mlp_norm=layer.post_attention_layernorm,
        mlp=layer.mlp,
        post_mlp_norm=None,
        q_norm=None,
        k_norm=None,
        hidden_size=attention.hidden_size,
        num_heads=sizes.value_heads,
        num_kv_heads=sizes.key_heads,
        head_dim=sizes.value_size,
        scale=1.0,
        softcap=None,
        window=None,
        rope=as_it_is,
        experts=_experts(layer.mlp),
        linear=sizes,
    )


def _experts(mlp: Any) -> Experts | None:
    """The experts of transformers' sparse blocks, whose router is a ``gate`` or a ``router``."""
    experts = getattr(mlp, "experts", None)
    if experts is None:
        return None
    router = getattr(mlp, "gate", None) or mlp.router
    return Experts(router.top_k, experts.num_experts)


def window_of(attention: Any) -> int | None:
    """The sliding window of an attention module, None where it sees everything."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)
