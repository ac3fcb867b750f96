"""Qwen3 with experts: Qwen3's layer whose MLP is 128 small ones, 8 of them for a token."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.qwen3 import qwen3
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("qwen3_moe", Family("qwen3_moe", "qwen3_moe", "Qwen3Moe", llama_like))


def _experts(hidden: int, mlp: int, expert: int, layers: int, heads: int) -> dict[str, Any]:
    return qwen3(
        hidden,
        mlp,
        layers,
        heads,
        num_key_value_heads=4,
        moe_intermediate_size=expert,
        num_experts=128,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )


SIZES = {
    "30b-a3b": _experts(2048, 6144, 768, 48, 32),
    "235b-a22b": _experts(4096, 12288, 1536, 94, 64),
}
for _size, _fields in SIZES.items():
    MODELS.add(
        f"qwen3-{_size}", Model("qwen3_moe", _fields, f"config.json of Qwen/Qwen3-{_size.upper()}")
    )
