"""DeepSeek-OCR 2: LLaMA's attention; of 64 experts a token meets six and a shared MLP.

The first layer's MLP is one. transformers' form of the checkpoint is served; that of the
publisher, of code that is never run, calls itself `deepseek_vl_v2`.
"""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import llama_like
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class DeepseekOcr2(Family):
    """Which layers have experts stands in ``mlp_layer_types``."""

    def experts(self, config: "PreTrainedConfig") -> Experts:
        return Experts(config.num_experts_per_tok, config.n_routed_experts)

    def check(self, name: str, config: "PreTrainedConfig") -> None:
        kinds = config.mlp_layer_types
        if not kinds or len(kinds) != config.num_hidden_layers:
            raise RequestError(
                f"model {name!r}: mlp_layer_types {kinds!r:.60}: dense or sparse for each of the "
                f"{config.num_hidden_layers} layers"
            )
        if wrong := set(kinds) - {"dense", "sparse"}:
            raise RequestError(
                f"model {name!r}: mlp_layer_types {min(wrong)!r:.60}: dense or sparse"
            )
        methods = {"greedy": (), "group_limited_greedy": ("n_group", "topk_group")}
        if config.topk_method not in methods:
            raise RequestError(
                f"model {name!r}: topk_method {config.topk_method!r:.60}: {' or '.join(methods)}"
            )
        for field in ("num_experts_per_tok", "n_shared_experts", *methods[config.topk_method]):
            if not getattr(config, field):
                raise RequestError(f"model {name!r}: {field} is missing; its experts need it")


FAMILIES.add(
    "deepseek_ocr2",
    DeepseekOcr2(
        "deepseek_ocr2_text",
        "deepseek_ocr2",
        "DeepseekOcr2Text",
        llama_like,
        lm_name="DeepseekOcr2ForConditionalGeneration",
    ),
)

TEXT: dict[str, Any] = {
    "vocab_size": 129280,
    "hidden_size": 1280,
    "intermediate_size": 6848,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "mlp_layer_types": ["dense"] + ["sparse"] * 11,
    "moe_intermediate_size": 896,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
}
TOWER: dict[str, Any] = {
    "model_type": "deepseek_ocr2_vision",
    "sam_config": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "global_attn_indexes": [2, 5, 8, 11],
        "downsample_channels": [512, 896],
    },
    "encoder_config": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "vocab_size": 1,
    },
}

MODELS.add(
    "deepseek-ocr-2",
    Model(
        "deepseek_ocr2",
        TEXT,
        "transformers' conversion script of deepseek-ai/DeepSeek-OCR-2, and that model's"
        " config.json",
        tower="deepseek_ocr2",
        around={
            "model_type": "deepseek_ocr2",
            "image_token_id": 128815,
            "vision_config": TOWER,
            "tie_word_embeddings": False,
        },
    ),
)
