"""The fields of a model's config.json, checked once before transformers sees them."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from workbench.vocabulary.errors import RequestError

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
"""What decides a decoder's parameters."""
TOWER_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "depth",
    "embed_dim",
    "num_heads",
    "image_size",
    "patch_size",
    "out_hidden_size",
)
"""What decides a vision tower's."""
MAX_LAYERS = 256
"""Twice those of the deepest published decoders; where none are alike, each is traced."""
WHOLE = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_hidden_layers": MAX_LAYERS,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "max_position_embeddings": 10**9,
    "original_max_position_embeddings": 10**9,
    "sliding_window": 10**9,
    "sliding_window_pattern": MAX_LAYERS,
    "depth": MAX_LAYERS,
    "embed_dim": 2**20,
    "out_hidden_size": 2**20,
    "num_heads": 2**14,
    "image_size": 10**5,
    "patch_size": 10**4,
    "num_channels": 2**10,
    "in_channels": 2**10,
    "in_chans": 2**10,
    "spatial_merge_size": 2**6,
    "temporal_patch_size": 2**6,
    "window_size": 10**6,
    "mm_tokens_per_image": 10**6,
    "num_position_embeddings": 2**24,
    "num_experts": 2**14,
    "num_local_experts": 2**14,
    "n_routed_experts": 2**14,
    "n_shared_experts": 2**10,
    "n_group": 2**14,
    "topk_group": 2**14,
    "num_experts_per_tok": 2**14,
    "moe_intermediate_size": 2**22,
    "moe_num_experts": 2**14,
    "moe_num_shared_experts": 2**10,
    "moe_topk": 2**14,
    "decoder_sparse_step": 2**10,
    "global_head_dim": 2**14,
    "num_global_key_value_heads": 2**14,
    "top_k_experts": 2**14,
    "moe_k": 2**14,
    "temporal_merge_size": 2**6,
    "pooling_kernel_size": 2**6,
    "attention_heads": 2**14,
    "num_global_layers": MAX_LAYERS,
    "vision_output_dim": 2**20,
    "max_num_tiles": 2**6,
    "attention_chunk_size": 10**9,
    "intermediate_size_mlp": 2**22,
    "interleave_moe_layer_step": MAX_LAYERS,
    "floor_scale": 10**9,
    "downsample_factor": 2**6,
    "hidden_stride": 2**6,
    "alignment_intermediate_size": 2**22,
    "projector_input_dim": 2**20,
    "projector_output_dim": 2**20,
    "position_embedding_size": 2**20,
    "shared_expert_intermediate_size": 2**22,
    "full_attention_interval": MAX_LAYERS,
    "linear_conv_kernel_dim": 2**6,
    "linear_key_head_dim": 2**14,
    "linear_value_head_dim": 2**14,
    "linear_num_key_heads": 2**14,
    "linear_num_value_heads": 2**14,
    "altup_num_inputs": 2**6,
    "laurel_rank": 2**14,
    "vocab_size_per_layer_input": 2**24,
    "conv_L_cache": 2**6,
    "kv_lora_rank": 2**20,
    "q_lora_rank": 2**20,
    "qk_rope_head_dim": 2**14,
    "qk_nope_head_dim": 2**14,
    "v_head_dim": 2**14,
    "block_ff_dim": 2**22,
    "block_multiple_of": 2**22,
    "projector_hidden_size": 2**20,
    "num_patches": 2**20,
    "attention_head_dim": 2**14,
    "org_vocab_size": 2**24,
    "max_image_size": 10**5,
}
"""Fields that are whole numbers from 1, and at most. None leaves a field to transformers."""
NESTED = ("max_image_size",)
"""Those of WHOLE that other families have as a section: Idefics 3's longest edge."""
ABSENT_AT_0 = ("shared_expert_intermediate_size",)
"""Those of WHOLE that files set to 0 for what a model has none of: Qwen3-Omni's thinker."""
POSITIVE = (
    "rms_norm_eps",
    "norm_eps",
    "layer_norm_eps",
    "rope_theta",
    "rope_local_base_freq",
    "factor",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "logit_scale",
    "logits_scaling",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "initializer_range",
    "tokens_per_second",
    "low_freq_factor",
    "high_freq_factor",
    "block_ffn_dim_multiplier",
)
"""Fields that are numbers above 0."""
OF_HEADS = ("mrope_section", "xdrope_section")
"""How a head's frequencies are shared among the axes of positions."""
SHARES = ("attention_dropout", "hidden_dropout", "dropout")
"""Fields that are numbers from 0 to below 1."""
LARGEST = 2**1000
SECTIONS_DEEP = 3


def check_fields(name: str, stated: Mapping[str, Any]) -> None:
    """Raise RequestError, naming field and value, for one that no model can have."""
    for where, fields in sections(stated):
        for field, value in fields.items():
            prefix = f"model {name!r}: {where}{field} {value!r:.60}"
            if value is None:
                continue
            if field == "sliding_window_pattern" and _is_pattern(value, fields):
                continue
            if field in WHOLE and not (field in NESTED and isinstance(value, Mapping)):
                values = value if isinstance(value, list) and value else [value]
                least = 0 if field in ABSENT_AT_0 else 1
                if not all(_is_whole(v) and least <= v <= WHOLE[field] for v in values):
                    raise RequestError(
                        f"{prefix}: a whole number from {least} to {WHOLE[field]:,}"
                    )
            elif field in POSITIVE and not (_is_number(value) and value > 0):
                raise RequestError(f"{prefix}: a number above 0")
            elif field in SHARES and not (_is_number(value) and 0 <= value < 1):
                raise RequestError(f"{prefix}: a number from 0 to below 1")
            elif field in OF_HEADS and not (
                isinstance(value, list) and value and all(_is_whole(v) and v >= 0 for v in value)
            ):
                raise RequestError(f"{prefix}: a list of whole numbers, half a head in sum")
            elif field == "layer_types" and not (
                isinstance(value, list) and all(isinstance(kind, str) for kind in value)
            ):
                raise RequestError(f"{prefix}: a list of words, one a layer")
            elif field == "tie_word_embeddings" and not isinstance(value, bool):
                raise RequestError(f"{prefix}: true or false")
    kind = stated.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise RequestError(
            f"model {name!r}: its config.json says no model_type, such as 'llama' or 'gemma3'"
        )


def sections(
    stated: Mapping[str, Any], where: str = "", depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The file's own fields and those of its sections, with ``section.`` before them."""
    yield where, stated
    if depth < SECTIONS_DEEP:
        for key, inner in stated.items():
            if isinstance(inner, Mapping):
                yield from sections(inner, f"{where}{key}.", depth + 1)


def _is_pattern(value: object, fields: Mapping[str, Any]) -> bool:
    """Whether it is a word of local and global layers, such as ``LLLG`` (EXAONE 4).

    Or 0, which transformers writes beside a window of null.
    """
    if _is_whole(value) and value == 0:
        return fields.get("sliding_window", 0) is None
    return isinstance(value, str) and bool(value) and set(value) <= {"L", "G"}


def _is_number(value: object) -> bool:
    """A number that floating point holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isfinite(value) if isinstance(value, float) else abs(value) < LARGEST


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_dividing(name: str, config: Any) -> None:
    """Raise RequestError where the sizes of a loaded text config do not go together."""
    prefix = f"model {name!r}:"
    without = "intermediate_size" if hasattr(config, "shared_expert_intermediate_size") else ""
    by_layer = "intermediate_size" if hasattr(config, "activation_sparsity_pattern") else ""
    for field in SIZES[:5]:
        value = getattr(config, field, None)
        if field == by_layer and isinstance(value, list) and all(map(_is_whole, value)):
            continue
        if field != without and not _is_whole(value):
            raise RequestError(f"{prefix} {field} is missing; a whole number from 1")
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    if heads % groups:
        raise RequestError(
            f"{prefix} num_attention_heads {heads} is no multiple of num_key_value_heads {groups}"
        )
    head_dim = getattr(config, "head_dim", None)
    if head_dim is None and config.hidden_size % heads:
        raise RequestError(
            f"{prefix} hidden_size {config.hidden_size} is no multiple of num_attention_heads "
            f"{heads}, and there is no head_dim"
        )
    head_dim = head_dim or config.hidden_size // heads
    if head_dim % 2:
        raise RequestError(f"{prefix} head_dim {head_dim}: rotary embeddings need an even one")
    check_axes(prefix, config, head_dim)
    check_experts(prefix, config)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return
    if len(kinds) != config.num_hidden_layers:
        raise RequestError(
            f"{prefix} layer_types has {len(kinds)} entries, num_hidden_layers is "
            f"{config.num_hidden_layers}"
        )
    served: tuple[str, ...] = ("full_attention", "sliding_attention")
    if getattr(config, "attention_chunk_size", None):
        served = ("full_attention", "chunked_attention")
    if hasattr(config, "linear_num_value_heads"):
        served = ("full_attention", "linear_attention")
        heads, keys = config.linear_num_value_heads, config.linear_num_key_heads
        if heads % keys:
            raise RequestError(
                f"{prefix} linear_num_value_heads {heads} is no multiple of linear_num_key_heads "
                f"{keys}"
            )
    if hasattr(config, "conv_L_cache"):
        served = ("full_attention", "conv")
    if wrong := sorted(set(kinds) - set(served)):
        raise RequestError(f"{prefix} layer_types {wrong[0]!r}: known: {', '.join(served)}")


def check_axes(prefix: str, config: Any, head_dim: int) -> None:
    """Raise RequestError where the axes of positions are not given half a head's turned part."""
    turning = getattr(config, "rope_parameters", None) or {}
    section, part = turning.get("mrope_section"), turning.get("partial_rotary_factor")
    half = int(head_dim * (part or 1)) // 2
    if section is not None and sum(section) != half:
        raise RequestError(
            f"{prefix} mrope_section {section}: of a head of {head_dim} the axes of positions "
            f"have {half} frequencies in sum, half of what is turned"
        )


def check_experts(prefix: str, config: Any) -> None:
    """Raise RequestError where a router could not choose as many experts as it has to."""
    names = ("moe_num_experts", "num_experts", "n_routed_experts")
    counts = {field: getattr(config, field, None) for field in names}
    field, experts = next(((k, n) for k, n in counts.items() if n), ("", 0))
    if not experts:
        return
    groups, of_groups = (getattr(config, name, None) or 1 for name in ("n_group", "topk_group"))
    for name in ("moe_k", "moe_topk", "num_experts_per_tok", "top_k_experts"):
        active = getattr(config, name, None) or 0
        if active > experts:
            raise RequestError(f"{prefix} {name} {active}: at most {field} {experts}")
        if active > of_groups * (experts // groups):
            raise RequestError(
                f"{prefix} topk_group {of_groups}: {name} {active} are chosen of so many of "
                f"{groups} groups of {experts // groups}"
            )
    if of_groups > groups or (groups > 1 and (experts % groups or experts // groups < 2)):
        raise RequestError(
            f"{prefix} n_group {groups}, topk_group {of_groups}: {field} {experts} is to be in "
            "groups of two or more alike, and no more are chosen than there are"
        )
