"""What towers have in common that begin with SAM's encoder: windows, global layers, a bias.

Its attention adds learned biases of rows and columns to the scores, and so hands SDPA a bias of
every pair. On shapes alone torch would take its composed form, which holds the scores twice more;
a prediction takes the fused operator that CUDA has for a bias.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.towers import implementation

EFFICIENT = torch.ops.aten._scaled_dot_product_efficient_attention
BIASED = (
    "tower: SAM's attention adds a bias to every pair of patches; under sdpa a prediction has the "
    "shapes of torch's memory-efficient attention, which takes one on CUDA"
)


class Modelled(nn.Module):
    """transformers' SDPA attention with the fused operator that takes a bias, on shapes alone."""

    def __init__(self, inner: Any, attend: Any = EFFICIENT) -> None:
        super().__init__()
        self.inner, self.attend = inner, attend

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """[n, rows, columns, width] -> the same shape, and no scores."""
        inner, hidden = self.inner, hidden_states
        size = tuple(hidden.shape[1:3])
        number, heads, pairs = hidden.shape[0], inner.num_attention_heads, (size[0] * size[1],) * 2
        qkv = inner.qkv(hidden).flatten(1, 2).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.flatten(1, 2).unbind(0)
        bias = None
        if inner.use_rel_pos:
            bias = inner.get_decomposed_rel_pos(
                query, inner.rel_pos_h, inner.rel_pos_w, size, size
            ).reshape(number, heads, *pairs)
        query, key, value = (x.unflatten(0, (number, heads)) for x in (query, key, value))
        needs = query.requires_grad
        out: Tensor = self.attend(query, key, value, bias, needs, scale=inner.scale)[0]
        rows = out.unflatten(2, size).permute(0, 2, 3, 1, 4).flatten(-2)
        return inner.proj(rows), None


def model_attention(encoder: Any, context: Context) -> None:
    """Give an encoder in a prediction the attention that CUDA would run."""
    if tracing(context.device) and implementation(context) == "sdpa":
        for layer in encoder.layers:
            layer.attn = Modelled(layer.attn)


def patches_a_side(config: Any, edge: int | None = None) -> int:
    """Patches a side of a square of ``edge`` pixels, the configuration's where none is given."""
    return int((edge or config.image_size) // config.patch_size)


def patch_flops(config: Any, edge: int | None = None) -> int:
    """Matmul FLOPs of the patch embedding of one square."""
    pixels = config.num_channels * config.patch_size**2
    return 2 * patches_a_side(config, edge) ** 2 * config.hidden_size * pixels


def encoder_flops(config: Any, edge: int | None = None) -> int:
    """Matmul FLOPs of the encoder over one square, patch embedding and neck included."""
    width, side = config.hidden_size, patches_a_side(config, edge)
    total = patch_flops(config, edge)
    for index in range(config.num_hidden_layers):
        window = 0 if index in config.global_attn_indexes else config.window_size
        across = window or side
        rows = (-(-side // across) * across) ** 2
        biased = 4 * across * width if config.use_rel_pos else 0
        total += rows * (8 * width**2 + 4 * across**2 * width + biased)
        total += 4 * side**2 * width * config.mlp_dim
    return total + neck_flops(config, side)


def neck_flops(config: Any, side: int) -> int:
    """Matmul FLOPs of a neck over ``side`` × ``side`` patches."""
    out = config.output_channels
    return 2 * side**2 * (config.hidden_size + 9 * out) * out
