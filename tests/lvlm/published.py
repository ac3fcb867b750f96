"""Folders of hub ids: config.json and the processors' files, written from what was published.

Fields that decide nothing here (token ids, dtypes, dropouts) are left out. Text and tower stand
where each file has them: flat, in sections, or partly left to the classes' defaults.
"""

from typing import Any

Files = dict[str, dict[str, Any]]

CONFIG, IMAGES, VIDEO, BOTH = (
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
CLIP = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def llama(hidden: int, mlp: int, layers: int, heads: int, groups: int, vocab: int, **own: Any):
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-5,
        **own,
    }


def llava(text: dict[str, Any], **own: Any) -> Files:
    config = {
        "model_type": "llava",
        "image_token_index": 32000,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": CLIP,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    return {CONFIG: config | own, IMAGES: {"size": {"shortest_edge": 336}}}


def llava_next(text: dict[str, Any]) -> Files:
    files = llava(text, model_type="llava_next", image_grid_pinpoints=PINPOINTS)
    files[CONFIG]["use_image_newline_parameter"] = True
    return files


def llava_next_video(text: dict[str, Any]) -> Files:
    files = llava_next(text)
    own = {"spatial_pool_mode": "average", "spatial_pool_stride": 2, "video_seq_length": 288}
    files[CONFIG] |= {"model_type": "llava_next_video", **own}
    return files


def vip_llava(text: dict[str, Any]) -> Files:
    """Its file names the layers in the plural, and has no strategy."""
    files = llava(text, model_type="vipllava", vision_feature_layers=[-2, -5, -8, -11, 6])
    for field in ("vision_feature_layer", "vision_feature_select_strategy"):
        del files[CONFIG][field]
    files[CONFIG]["projector_layernorm_eps"] = 1e-5
    return files


def onevision(vocab: int, hidden: int, mlp: int, layers: int, heads: int, groups: int) -> Files:
    tower = {**SO400M, "num_hidden_layers": 26, "image_size": 384, "vision_use_head": False}
    edges = range(384, 2305, 384)
    tied = hidden == 896
    config = {
        "model_type": "llava_onevision",
        "vision_aspect_ratio": "anyres_max_9",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": [[high, wide] for high in edges for wide in edges],
        "vision_config": {**tower, "model_type": "siglip_vision_model"},
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": groups,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": tied,
            "vocab_size": vocab,
        },
        "tie_word_embeddings": tied,
    }
    return {CONFIG: config, IMAGES: {"size": {"height": 384, "width": 384}}}


def qwen2(kind: str, sizes: tuple[int, ...], tower: dict[str, Any], tied: bool = False) -> Files:
    """Qwen2-VL and Qwen2.5-VL: the text model's fields stand flat beside the tower's."""
    vocab, hidden, mlp, layers, heads, groups = sizes
    config = {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_window_layers": layers,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": tied,
        "vision_config": tower,
    }
    limits = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
    return {CONFIG: config, IMAGES: limits}


def qwen2_tower(hidden: int) -> dict[str, Any]:
    return {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }


def qwen2_5_tower(mlp: int, out: int) -> dict[str, Any]:
    return {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": mlp,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": out,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }


def qwen3(hidden: int, mlp: int, layers: int, heads: int, small: bool, **experts: Any) -> Files:
    kind = "qwen3_vl_moe" if experts else "qwen3_vl"
    tied = hidden < 4096 and not experts
    text = {
        "model_type": f"{kind}_text",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 4 if experts else 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "tie_word_embeddings": tied,
        **experts,
    }
    tower = {
        "model_type": kind,
        "depth": 24 if small else 27,
        "hidden_size": 1024 if small else 1152,
        "intermediate_size": 4096 if small else 4304,
        "deepstack_visual_indexes": [5, 11, 17] if small else [8, 16, 24],
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": hidden,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    config = {
        "model_type": kind,
        "text_config": text,
        "vision_config": tower,
        "tie_word_embeddings": tied,
    }
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    video = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}}
    return {CONFIG: config, IMAGES: {"size": size, "patch_size": 16}, VIDEO: video}


def experts(width: int) -> dict[str, Any]:
    return {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": width}


def gemma3(hidden: int, mlp: int, layers: int, **own: Any) -> Files:
    """The 4B's file leaves heads and vocabulary to the class."""
    config = {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
            **own,
        },
        "vision_config": {
            **SO400M,
            "image_size": 896,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
    }
    prepared = {"do_pan_and_scan": None, "image_seq_length": 256}
    return {CONFIG: config, IMAGES: prepared, BOTH: {"image_seq_length": 256}}


def paligemma2(edge: int, *sizes: int, **own: Any) -> Files:
    """Its files state neither outer width nor outer vocabulary, and at 224 no size of an image."""
    hidden, mlp, layers, heads, groups, head = sizes
    text = {
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": head,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": groups,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "vocab_size": 257216,
        **own,
    }
    tower = {
        **SO400M,
        **({} if edge == 224 else {"image_size": edge}),
        "model_type": "siglip_vision_model",
        "projection_dim": hidden,
        "vision_use_head": False,
    }
    config = {
        "_vocab_size": 257152,
        "model_type": "paligemma",
        "image_token_index": 257152,
        "num_hidden_layers": layers,
        "projection_dim": hidden,
        "text_config": text,
        "vision_config": tower,
    }
    images = {"image_seq_length": (edge // 14) ** 2, "size": {"height": edge, "width": edge}}
    return {CONFIG: config, IMAGES: {**images, "image_processor_type": "SiglipImageProcessor"}}


def paligemma(edge: int) -> Files:
    """Its text model's section leaves out what are the defaults of transformers' class."""
    files = paligemma2(edge, 2048, 16384, 18, 8, 1, 256)
    text = {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_image_tokens": (edge // 14) ** 2,
        "num_key_value_heads": 1,
        "vocab_size": 257216,
    }
    files[CONFIG] |= {"hidden_size": 2048, "text_config": text}
    del files[CONFIG]["num_hidden_layers"]
    return files


def internvl(text: dict[str, Any], wide: bool = False) -> Files:
    tower = {
        "model_type": "internvl_vision",
        "attention_bias": not wide,
        "hidden_size": 3200 if wide else 1024,
        "intermediate_size": 12800 if wide else 4096,
        "num_attention_heads": 25 if wide else 16,
        "num_hidden_layers": 45 if wide else 24,
        "norm_type": "rms_norm" if wide else "layer_norm",
        "use_qk_norm": wide,
        "image_size": [448, 448],
        "patch_size": [14, 14],
    }
    config = {
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "text_config": text,
        "vision_config": tower,
        "vision_feature_layer": -1,
        "tie_word_embeddings": False,
    }
    prepared = {"crop_to_patches": False, "max_patches": 12, "min_patches": 1}
    return {CONFIG: config, IMAGES: {**prepared, "size": {"height": 448, "width": 448}}}


def inner(kind: str, hidden: int, mlp: int, layers: int, heads: int, groups: int, vocab: int):
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocab,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    }


def idefics3(kind: str, text: dict[str, Any], tower: dict[str, Any], scale: int, edge: int):
    config = {
        "model_type": kind,
        "scale_factor": scale,
        "text_config": text,
        "vision_config": tower,
        "tie_word_embeddings": False,
    }
    prepared = {
        "size": {"longest_edge": edge},
        "max_image_size": {"longest_edge": tower["image_size"]},
        "do_image_splitting": True,
    }
    return {CONFIG: config, IMAGES: prepared}


BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}


def pixtral(patch: int, edge: int) -> dict[str, Any]:
    return {
        "model_type": "pixtral",
        "head_dim": 64,
        "hidden_act": "silu" if patch == 14 else "gelu",
        "hidden_size": 1024,
        "image_size": edge,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": patch,
        "rope_theta": 10000.0,
    }


def mistral3(text: dict[str, Any], tied: bool = False) -> Files:
    config = {
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
        "vision_config": pixtral(14, 1540),
        "text_config": text,
        "tie_word_embeddings": tied,
    }
    prepared = {"patch_size": 14, "size": {"longest_edge": 1540}}
    return {CONFIG: config, IMAGES: prepared, BOTH: {"patch_size": 14, "spatial_merge_size": 2}}


def small_24b() -> Files:
    text = inner("mistral", 5120, 32768, 40, 32, 8, 131072)
    return mistral3({**text, "head_dim": 128, "rope_theta": 1e9, "sliding_window": None})


def ministral3(hidden: int, mlp: int, layers: int, theta: float, tied: bool = False) -> Files:
    text = inner("ministral3", hidden, mlp, layers, 32, 8, 131072)
    del text["rope_theta"]
    turning = {
        "type": "yarn",
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "max_position_embeddings": 262144,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    own = {"head_dim": 128, "rope_parameters": turning, "tie_word_embeddings": tied}
    return mistral3({**text, **own}, tied)


def glm(kind: str, text: dict[str, Any], tower_mlp: int, newer: bool = False) -> Files:
    config = {
        "model_type": kind,
        "text_config": {
            "model_type": f"{kind}_text",
            "attention_bias": True,
            "hidden_size": 4096,
            "vocab_size": 151552,
            "rms_norm_eps": 1e-5,
            "partial_rotary_factor": 0.5,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "default", "mrope_section": [8, 12, 12]},
            **text,
        },
        "vision_config": {
            "model_type": kind,
            "depth": 24,
            "hidden_size": 1536,
            "image_size": 336,
            "in_channels": 3,
            "intermediate_size": tower_mlp,
            "num_heads": 12,
            "out_hidden_size": 4096,
            "patch_size": 14,
            "rms_norm_eps": 1e-5,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "tie_word_embeddings": False,
    }
    named = "Glm46V" if newer else "Glm4v"
    images = {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}
    video = {"size": {"shortest_edge": 12544, "longest_edge": 47040000}}
    return {
        CONFIG: config,
        IMAGES: {**images, "image_processor_type": f"{named}ImageProcessor"},
        VIDEO: {**video, "video_processor_type": f"{named}VideoProcessor"},
    }


GLM_9B = {
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
}
GLM_106B = {
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
}

VICUNA_7B = llama(4096, 11008, 32, 32, 32, 32064)
SERVED: dict[str, Files] = {
    "llava-hf/llava-1.5-7b-hf": llava(
        {"model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 32064}
    ),
    "llava-hf/llava-1.5-13b-hf": llava(llama(5120, 13824, 40, 40, 40, 32064)),
    "llava-hf/llava-v1.6-vicuna-7b-hf": llava_next(VICUNA_7B),
    "llava-hf/vip-llava-7b-hf": vip_llava(VICUNA_7B),
    "llava-hf/LLaVA-NeXT-Video-7B-hf": llava_next_video(VICUNA_7B),
    "llava-hf/llava-v1.6-34b-hf": llava_next(
        llama(7168, 20480, 60, 56, 8, 64064, rope_theta=5000000.0)
    ),
    "llava-hf/llama3-llava-next-8b-hf": llava_next(
        llama(4096, 14336, 32, 32, 8, 128320, rope_theta=500000.0)
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": onevision(152000, 896, 4864, 24, 14, 2),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": onevision(152128, 3584, 18944, 28, 28, 4),
    "Qwen/Qwen2-VL-2B-Instruct": qwen2(
        "qwen2_vl", (151936, 1536, 8960, 28, 12, 2), qwen2_tower(1536), tied=True
    ),
    "Qwen/Qwen2-VL-7B-Instruct": qwen2(
        "qwen2_vl", (152064, 3584, 18944, 28, 28, 4), qwen2_tower(3584)
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": qwen2(
        "qwen2_5_vl", (151936, 2048, 11008, 36, 16, 2), qwen2_5_tower(3420, 2048), tied=True
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": qwen2(
        "qwen2_5_vl", (152064, 3584, 18944, 28, 28, 4), qwen2_5_tower(3420, 3584)
    ),
    "Qwen/Qwen2.5-VL-32B-Instruct": qwen2(
        "qwen2_5_vl", (152064, 5120, 27648, 64, 40, 8), qwen2_5_tower(3456, 5120)
    ),
    "Qwen/Qwen2.5-VL-72B-Instruct": qwen2(
        "qwen2_5_vl", (152064, 8192, 29568, 80, 64, 8), qwen2_5_tower(3456, 8192)
    ),
    "Qwen/Qwen3-VL-2B-Instruct": qwen3(2048, 6144, 28, 16, small=True),
    "Qwen/Qwen3-VL-4B-Instruct": qwen3(2560, 9728, 36, 32, small=True),
    "Qwen/Qwen3-VL-8B-Instruct": qwen3(4096, 12288, 36, 32, small=False),
    "Qwen/Qwen3-VL-32B-Instruct": qwen3(5120, 25600, 64, 64, small=False),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": qwen3(2048, 6144, 48, 32, small=False, **experts(768)),
    "Qwen/Qwen3-VL-235B-A22B-Instruct": qwen3(4096, 12288, 94, 64, small=False, **experts(1536)),
    "google/gemma-3-4b-it": gemma3(2560, 10240, 34),
    "google/gemma-3-12b-it": gemma3(
        3840, 15360, 48, num_attention_heads=16, num_key_value_heads=8
    ),
    "google/gemma-3-27b-it": gemma3(
        5376,
        21504,
        62,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
        query_pre_attn_scalar=168,
    ),
    "google/paligemma-3b-mix-448": paligemma(448),
    "google/paligemma2-3b-pt-224": paligemma2(224, 2304, 9216, 26, 8, 4, 256),
    "google/paligemma2-10b-mix-448": paligemma2(448, 3584, 14336, 42, 16, 8, 256),
    "google/paligemma2-28b-pt-896": paligemma2(
        896, 4608, 36864, 46, 32, 16, 128, query_pre_attn_scalar=144
    ),
    "OpenGVLab/InternVL3-1B-hf": internvl(inner("qwen2", 896, 4864, 24, 14, 2, 151674)),
    "OpenGVLab/InternVL3-8B-hf": internvl(inner("qwen2", 3584, 18944, 28, 28, 4, 151674)),
    "OpenGVLab/InternVL3-38B-hf": internvl(inner("qwen2", 5120, 27648, 64, 40, 8, 151674), True),
    "OpenGVLab/InternVL3_5-8B-HF": internvl(
        {**inner("qwen3", 4096, 12288, 36, 32, 8, 151936), "head_dim": 128}
    ),
    "OpenGVLab/InternVL3_5-30B-A3B-HF": internvl(
        {**inner("qwen3_moe", 2048, 6144, 48, 32, 4, 151936), "head_dim": 128, **experts(768)}
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": idefics3(
        "idefics3",
        llama(4096, 14336, 32, 32, 8, 128259),
        {**SO400M, "image_size": 364, "model_type": "idefics3"},
        2,
        1456,
    ),
    "HuggingFaceTB/SmolVLM-Instruct": idefics3(
        "idefics3",
        llama(2048, 8192, 24, 32, 32, 49155, rope_theta=273768.0),
        {**SO400M, "image_size": 384, "model_type": "idefics3"},
        3,
        1536,
    ),
    "HuggingFaceTB/SmolVLM-256M-Instruct": idefics3(
        "idefics3", llama(576, 1536, 30, 9, 3, 49280), {**BASE, "model_type": "idefics3"}, 4, 2048
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": idefics3(
        "smolvlm",
        llama(2048, 8192, 24, 32, 32, 49280, rope_theta=130000.0),
        {**SO400M, "image_size": 384, "model_type": "smolvlm_vision"},
        3,
        1536,
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": idefics3(
        "smolvlm",
        llama(960, 2560, 32, 15, 5, 49280, rope_theta=100000.0),
        {**BASE, "model_type": "smolvlm_vision"},
        4,
        2048,
    ),
    "mistral-community/pixtral-12b": {
        CONFIG: {
            "model_type": "llava",
            "image_token_index": 10,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_config": pixtral(16, 1024),
            "text_config": {
                **inner("mistral", 5120, 14336, 40, 32, 8, 131072),
                "head_dim": 128,
                "sliding_window": None,
            },
            "tie_word_embeddings": False,
        },
        IMAGES: {"patch_size": {"height": 16, "width": 16}, "size": {"longest_edge": 1024}},
    },
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": small_24b(),
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": small_24b(),
    "mistralai/Magistral-Small-2509": small_24b(),
    "mistralai/Ministral-3-3B-Instruct-2512": ministral3(3072, 9216, 26, 1e6, tied=True),
    "mistralai/Ministral-3-8B-Instruct-2512": ministral3(4096, 14336, 34, 1e6),
    "mistralai/Ministral-3-14B-Instruct-2512": ministral3(5120, 16384, 40, 1e9),
    "zai-org/GLM-4.1V-9B-Thinking": glm("glm4v", GLM_9B, 13696),
    "zai-org/GLM-4.5V": glm("glm4v_moe", GLM_106B, 10944),
    "zai-org/GLM-4.6V-Flash": glm("glm4v", GLM_9B, 13696, newer=True),
    "zai-org/GLM-4.6V": glm("glm4v_moe", GLM_106B, 10944, newer=True),
    "openbmb/MiniCPM-V-4.6": {
        CONFIG: {
            "model_type": "minicpmv4_6",
            "drop_vision_last_layer": False,
            "image_size": 1120,
            "tie_word_embeddings": True,
            "text_config": {
                **inner("qwen3_5_text", 1024, 3584, 24, 8, 2, 248320),
                "attn_output_gate": True,
                "full_attention_interval": 4,
                "head_dim": 256,
                "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 6,
                "linear_key_head_dim": 128,
                "linear_num_key_heads": 16,
                "linear_num_value_heads": 16,
                "linear_value_head_dim": 128,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e7,
                    "partial_rotary_factor": 0.25,
                    "mrope_section": [11, 11, 10],
                },
                "tie_word_embeddings": True,
            },
            "vision_config": {
                "model_type": "minicpmv4_6_vision",
                **SO400M,
                "image_size": 980,
                "num_channels": 3,
            },
        },
    },
    "deepseek-community/DeepSeek-OCR-2": {
        CONFIG: {
            "model_type": "deepseek_ocr2",
            "image_token_id": 128815,
            "tie_word_embeddings": False,
            "text_config": {
                **inner("deepseek_ocr2_text", 1280, 6848, 12, 10, 10, 129280),
                "head_dim": 128,
                "max_position_embeddings": 8192,
                "mlp_layer_types": ["dense"] + ["sparse"] * 11,
                "moe_intermediate_size": 896,
                "n_group": 1,
                "n_routed_experts": 64,
                "n_shared_experts": 2,
                "num_experts_per_tok": 6,
                "topk_group": 1,
                "topk_method": "greedy",
            },
            "vision_config": {
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
                    "rope_theta": 1000000.0,
                    "vocab_size": 1,
                },
            },
        },
        IMAGES: {
            "size": {"height": 1024, "width": 1024},
            "tile_size": 768,
            "crop_to_patches": True,
            "min_patches": 2,
            "max_patches": 6,
        },
        BOTH: {"patch_size": 16, "downsample_ratio": 4},
    },
    "deepseek-community/deepseek-vl-7b-chat": {
        CONFIG: {
            "model_type": "deepseek_vl_hybrid",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "max_position_embeddings": 16384,
                "num_attention_heads": 32,
                "num_hidden_layers": 30,
                "vocab_size": 102400,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "image_size": 384,
                "patch_size": 16,
                "hidden_act": "gelu",
                "vision_use_head": False,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
            },
            "high_res_vision_config": {
                "model_type": "sam_vision_model",
                "hidden_size": 768,
                "intermediate_size": 3072,
                "image_size": 1024,
                "patch_size": 16,
                "num_attention_heads": 12,
                "num_hidden_layers": 12,
            },
            "tie_word_embeddings": False,
        },
        IMAGES: {
            "size": {"height": 384, "width": 384},
            "high_res_size": {"height": 1024, "width": 1024},
        },
        BOTH: {"num_image_tokens": 576},
    },
    "deepseek-community/deepseek-vl-1.3b-chat": {
        CONFIG: {
            "model_type": "deepseek_vl",
            "image_token_id": 100015,
            "text_config": {
                **llama(2048, 5632, 24, 16, 16, 102400),
                "max_position_embeddings": 16384,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 384,
                "patch_size": 16,
                "hidden_act": "gelu",
            },
            "tie_word_embeddings": False,
        },
        IMAGES: {"size": {"height": 384, "width": 384}},
        BOTH: {"num_image_tokens": 576},
    },
}
"""Each is served at scope lvlm, with the parameters of transformers' own whole model."""
TOTALS = {
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen2.5-VL-72B-Instruct": 73_410_777_344,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "google/gemma-3-27b-it": 27_432_406_640,
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": 24_011_361_280,
    "zai-org/GLM-4.5V": 107_710_927_360,
}
"""Parameters as their pages on the hub have them, without what is a buffer."""


def plain(kind: str, **own: Any) -> Files:
    """A config.json of which no more than the type decides."""
    return {CONFIG: {"model_type": kind, **own}}


REMOTE = {"auto_map": {"AutoConfig": "configuration.Config", "AutoModel": "modeling.Model"}}
SERVED["allenai/Molmo2-8B"] = plain(
    "molmo2",
    text_config={
        **inner("molmo2_text", 4096, 12288, 36, 32, 8, 151936),
        "head_dim": 128,
        "additional_vocab_size": 128,
        "layer_norm_eps": 1e-6,
        "norm_after": False,
        "qk_norm_type": "qwen3",
        "qkv_bias": False,
        "rope_scaling": None,
        "rope_scaling_layers": None,
        "rope_theta": 1e6,
    },
    vit_config={
        "model_type": "molmo2",
        **SO400M,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "image_default_input_size": [378, 378],
        "image_patch_size": 14,
        "image_num_pos": 729,
    },
    adapter_config={
        "model_type": "molmo2",
        "vit_layers": [-3, -9],
        "hidden_size": 1152,
        "intermediate_size": 12288,
        "text_hidden_size": 4096,
    },
    tie_word_embeddings=False,
    **REMOTE,
)
SERVED["allenai/Molmo2-8B"][VIDEO] = {"num_frames": 384, "max_fps": 2, "pooling_size": [3, 3]}
COHERE = {"rope_theta": 50000, "logit_scale": 0.25, "sliding_window": 4096, "layer_norm_eps": 1e-5}
COHERE |= {"sliding_window_pattern": 4, "tie_word_embeddings": True, "rotary_pct": 1.0}
"""Of Cohere 2's text models, with fields of older releases."""
SERVED["CohereLabs/aya-vision-8b"] = plain(
    "aya_vision",
    text_config={**inner("cohere2", 4096, 14336, 32, 32, 8, 256000), **COHERE},
    vision_config={
        "model_type": "siglip_vision_model",
        **SO400M,
        "image_size": 364,
        "vision_use_head": False,
    },
    adapter_layer_norm_eps=1e-6,
    alignment_intermediate_size=28672,
    downsample_factor=2,
    image_token_index=255036,
    max_splits_per_img=12,
    vision_feature_layer=-1,
    vision_feature_select_strategy="full",
)
SERVED["CohereLabs/aya-vision-8b"][IMAGES] = {
    "crop_to_patches": False,
    "max_patches": 12,
    "min_patches": 1,
    "size": {"height": 364, "width": 364},
}
SERVED["CohereLabs/command-a-vision-07-2025"] = plain(
    "cohere2_vision",
    text_config={**inner("cohere2", 12288, 36864, 64, 96, 8, 256000), **COHERE},
    vision_config={
        "model_type": "siglip_vision_model",
        **SO400M,
        "patch_size": 16,
        "image_size": 512,
        "vision_use_head": False,
    },
    alignment_intermediate_size=36864,
    downsample_factor=2,
    image_token_id=255036,
)
SERVED["CohereLabs/command-a-vision-07-2025"][IMAGES] = {
    "crop_to_patches": True,
    "max_patches": 12,
    "patch_size": 16,
    "size": {"height": 512, "width": 512},
}
SERVED["baidu/Qianfan-OCR"] = plain(
    "qianfan_ocr",
    image_seq_length=256,
    image_token_id=151667,
    text_config={**inner("qwen3", 2560, 9728, 36, 32, 8, 151936), "head_dim": 128},
    vision_config={
        "model_type": "qianfan_ocr_vision",
        "drop_path_rate": 0.1,
        "hidden_size": 1024,
        "image_size": [448, 448],
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
    },
    tie_word_embeddings=False,
)
SERVED["baidu/Qianfan-OCR"][IMAGES] = {
    "crop_to_patches": True,
    "max_patches": 12,
    "min_patches": 1,
    "size": {"height": 448, "width": 448},
}
SERVED["baidu/Qianfan-OCR"][BOTH] = {"image_seq_length": 256}
SERVED["rhymes-ai/Aria"] = plain(
    "aria",
    auto_map={"AutoConfig": "modeling_aria.AriaConfig"},
    image_token_index=9,
    projector_patch_to_query_dict={"1225": 128, "4900": 256},
    text_config={
        "hidden_size": 2560,
        "intermediate_size": 1664,
        "max_position_embeddings": 65536,
        "model_type": "aria_text",
        "moe_intermediate_size": 1664,
        "moe_num_experts": 64,
        "moe_topk": 6,
        "num_attention_heads": 20,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 28,
        "num_key_value_heads": 20,
        "rope_theta": 5000000,
        "vocab_size": 100352,
    },
    vision_config={
        "attention_heads": 16,
        "image_size": 980,
        "intermediate_size": 4304,
        "model_type": "idefics3_vision",
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
    vision_feature_layer=-1,
)
SERVED["rhymes-ai/Aria"][IMAGES] = {
    "max_image_size": 980,
    "min_image_size": 336,
    "split_image": False,
}
SERVED["google/shieldgemma-2-4b-it"] = gemma3(2560, 10240, 34)
SERVED["google/shieldgemma-2-4b-it"][CONFIG]["model_type"] = "shieldgemma2"
"""From memory: Gemma 3 4B's file under another type."""
SERVED["tiny-hcx-model/tiny-random-HyperCLOVAXVisionV2ForConditionalGeneration"] = plain(
    "hyperclovax_vision_v2",
    image_token_id=3,
    text_config={
        "attention_multiplier": 0.25,
        "embedding_multiplier": 1.0,
        "head_dim": 16,
        "hidden_act": "gelu",
        "hidden_size": 32,
        "intermediate_size": 32,
        "logits_scaling": 1.0,
        "max_position_embeddings": 512,
        "model_type": "hyperclovax",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "residual_multiplier": 1.0,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_post_norm": True,
        "vocab_size": 128256,
    },
    tie_word_embeddings=False,
    video_token_id=4,
    vision_config={
        "depth": 2,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_act": "gelu",
        "hidden_size": 32,
        "in_channels": 3,
        "intermediate_size": 32,
        "model_type": "qwen2_5_vl_vision",
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": 14,
    },
)
"""Of the 32B's form; what the file has behind the patch's size is left out."""
SERVED["thisisiron/Ovis2-1B-hf"] = plain(
    "ovis2",
    hidden_size=896,
    image_token_id=151665,
    text_config={
        **inner("qwen2", 896, 4864, 24, 14, 2, 151936),
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
    vision_config={
        "model_type": "ovis2_vision",
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 8,
        "num_hidden_layers": 24,
        "image_size": 448,
        "patch_size": 14,
        "hidden_stride": 2,
        "num_visual_indicator_tokens": 5,
        "tokenize_function": "softmax",
        "vocab_size": 65536,
    },
    visual_indicator_token_ids=[151666, 151667, 151668, 151669, 151670],
    vocab_size=151936,
)
SERVED["thisisiron/Ovis2-1B-hf"][IMAGES] = {
    "crop_to_patches": True,
    "max_patches": 12,
    "min_patches": 1,
    "size": {"height": 448, "width": 448},
    "use_covering_area_grid": True,
}
SERVED["thisisiron/Ovis2-1B-hf"][BOTH] = {"image_seq_length": 256}
SERVED["HuggingFaceM4/idefics2-8b"] = plain(
    "idefics2",
    additional_vocab_size=0,
    image_token_id=32001,
    perceiver_config={"model_type": "idefics2"},
    text_config={
        "model_type": "mistral",
        "max_position_embeddings": 32768,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32003,
    },
    tie_word_embeddings=False,
    vision_config={"model_type": "idefics2", **SO400M, "image_size": 980},
)
SERVED["HuggingFaceM4/idefics2-8b"][IMAGES] = {
    "do_image_splitting": True,
    "size": {"longest_edge": 980, "shortest_edge": 378},
}
SERVED["lightonai/LightOnOCR-1B-1025"] = plain(
    "lighton_ocr",
    image_token_id=151655,
    spatial_merge_size=2,
    text_config={
        **inner("qwen3", 1024, 3072, 28, 16, 8, 151936),
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    vision_config={
        "model_type": "pixtral",
        "head_dim": 64,
        "hidden_size": 1024,
        "image_size": 1540,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "rope_theta": 10000,
    },
)
SERVED["lightonai/LightOnOCR-1B-1025"][IMAGES] = {
    "patch_size": {"height": 14, "width": 14},
    "size": {"longest_edge": 1540},
}
SERVED["zai-org/GLM-OCR"] = plain(
    "glm_ocr",
    text_config={
        **inner("glm_ocr_text", 1536, 4608, 16, 16, 8, 59392),
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "num_nextn_predict_layers": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000,
            "partial_rotary_factor": 1.0,
            "mrope_section": [16, 24, 24],
        },
    },
    vision_config={
        "model_type": "glm_ocr_vision",
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 1536,
        "image_size": 336,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "rms_norm_eps": 1e-5,
    },
    tie_word_embeddings=False,
)
"""The text model's sizes from memory: the defaults of its class do not fit those of its tower."""
SERVED["stepfun-ai/GOT-OCR-2.0-hf"] = plain(
    "got_ocr2",
    image_seq_length=256,
    text_config={
        **inner("qwen2", 1024, 2816, 24, 16, 16, 151860),
        "tie_word_embeddings": True,
    },
    vision_config={
        "model_type": "",  # As transformers 4 wrote it, whose class had none.
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "image_size": 1024,
    },
)
SERVED["baidu/ERNIE-4.5-VL-28B-A3B-PT"] = plain(
    "ernie4_5_vl_moe",
    image_start_token_id=101304,
    image_end_token_id=101305,
    image_token_id=100295,
    text_config={
        "model_type": "ernie4_5_vl_moe_text",
        "hidden_act": "silu",
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "max_position_embeddings": 131072,
        "mlp_layer_types": ["dense"] + ["sparse"] * 27,
        "moe_intermediate_size": [1536, 512],
        "moe_k": 6,
        "moe_norm_min": 1e-12,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "num_attention_heads": 20,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "mrope_section": [22, 22, 20],
            "rope_theta": 500000.0,
            "rope_type": "default",
        },
        "use_bias": False,
        "vocab_size": 103424,
    },
    tie_word_embeddings=True,
    video_token_id=103367,
    vision_config={
        "model_type": "ernie4_5_vl_moe_vision",
        "depth": 32,
        "hidden_act": "quick_gelu",
        "hidden_size": 1280,
        "in_channels": 3,
        "intermediate_size": 5120,
        "num_heads": 16,
        "patch_size": 14,
        "rms_norm_eps": 1e-6,
        "spatial_merge_size": 2,
        "temporal_merge_size": 2,
    },
)
"""In transformers' form, which its conversion script writes; the published one is refused."""
SERVED["baidu/ERNIE-4.5-VL-28B-A3B-PT"][IMAGES] = {
    "image_processor_type": "Ernie4_5_VLMoeImageProcessor",
    "merge_size": 2,
    "patch_size": 14,
    "size": {"longest_edge": 4842768, "shortest_edge": 3136},
}
SERVED["PaddlePaddle/PaddleOCR-VL"] = plain(
    "paddleocr_vl",
    **{
        **inner("paddleocr_vl", 1024, 3072, 18, 16, 2, 103424),
        "compression_ratio": 1.0,
        "head_dim": 128,
        "max_sequence_length": None,
        "rms_norm_eps": 1e-5,
        "rope_is_neox_style": True,
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
        "rope_theta": 500000,
        "use_3d_rope": True,
        "use_bias": False,
        "model_type": "paddleocr_vl",
    },
    image_token_id=100295,
    video_token_id=101307,
    vision_config={
        "model_type": "paddleocr_vl",
        "attention_dropout": 0.0,
        **SO400M,
        "image_size": 384,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
    },
    auto_map={"AutoConfig": "configuration_paddleocr_vl.PaddleOCRVLConfig"},
)
SERVED["PaddlePaddle/PaddleOCR-VL"][IMAGES] = {
    "image_processor_type": "PaddleOCRVLImageProcessor",
    "max_pixels": 2822400,
    "merge_size": 2,
    "min_pixels": 147384,
    "patch_size": 14,
    "temporal_patch_size": 1,
}
SERVED["lkhl/VideoLLaMA3-2B-Image-HF"] = plain(
    "video_llama_3",
    image_token_id=151655,
    video_token_id=151656,
    text_config={
        **inner("qwen2", 1536, 8960, 28, 12, 2, 151936),
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    vision_config={
        "model_type": "video_llama_3_vision",
        **SO400M,
        "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "num_channels": 3,
    },
    tie_word_embeddings=True,
)
SERVED["lkhl/VideoLLaMA3-2B-Image-HF"][IMAGES] = {
    "image_processor_type": "VideoLlama3ImageProcessor",
    "merge_size": 1,
    "patch_size": 14,
    "temporal_patch_size": 1,
}
SERVED["lkhl/VideoLLaMA3-2B-Image-HF"][VIDEO] = {
    "do_sample_frames": False,
    "max_frames": 180,
    "merge_size": 2,
    "patch_size": 14,
    "temporal_patch_size": 1,
    "use_token_compression": True,
    "video_processor_type": "VideoLlama3VideoProcessor",
}
GRANITE = {
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SIGLIP_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "image_size": 512,
    "patch_size": 16,
}
GRIDS = [[384, 384 * n] for n in range(1, 11)] + [[768, 384 * n] for n in range(1, 6)]
GRIDS += [[1152, 384], [1152, 768], [1152, 1152], [1536, 384], [1536, 768], [1920, 384]]
GRIDS += [[1920, 768], *([384 * n, 384] for n in range(6, 11))]
SERVED["ibm-granite/granite-vision-3.3-2b"] = plain(
    "llava_next",
    image_grid_pinpoints=GRIDS,
    image_seq_length=576,
    image_token_index=49155,
    multimodal_projector_bias=True,
    projector_hidden_act="gelu",
    text_config={
        **inner("granite", 2048, 8192, 40, 32, 8, 49156),
        **GRANITE,
        "attention_dropout": 0.1,
        "logits_scaling": 8.0,
        "rope_theta": 300000,
    },
    tie_word_embeddings=True,
    use_image_newline_parameter=True,
    vision_config={**SO400M, "image_size": 384, "model_type": "siglip_vision_model"},
    vision_feature_layer=[-24, -20, -12, -1],
    vision_feature_select_strategy="full",
)
SERVED["ibm-granite/granite-vision-4.1-4b"] = plain(
    "granite4_vision",
    deepstack_layer_map=[[-19, 9], [-13, 6], [-7, 3], [-1, 0]],
    downsample_rate="4/8",
    image_grid_pinpoints=GRIDS,
    image_token_index=100352,
    spatial_target_layers=[12, 15, 18, 21],
    spatial_vision_layer=-1,
    text_config={
        **inner("granite4_vision_text", 2560, 8192, 40, 40, 8, 100353),
        **GRANITE,
        "logits_scaling": 10.0,
        "rope_theta": 10000000,
    },
    tie_word_embeddings=True,
    use_image_newline_parameter=True,
    use_spatial_sampling=True,
    vision_config={
        **SO400M,
        "patch_size": 16,
        "image_size": 384,
        "model_type": "siglip_vision_model",
    },
    vision_feature_select_strategy="full",
)
for _name in ("ibm-granite/granite-vision-3.3-2b", "ibm-granite/granite-vision-4.1-4b"):
    SERVED[_name][IMAGES] = {
        "crop_size": {"height": 384, "width": 384},
        "image_grid_pinpoints": GRIDS,
        "size": {"height": 384, "width": 384},
    }
SERVED["ibm-granite/granite-for-docling-500m"] = plain(
    "granite_docling",
    image_token_id=100337,
    text_config={
        **inner("granite_docling_text", 1024, 2048, 28, 16, 4, 133800),
        **GRANITE,
        "logits_scaling": 4.0,
        "residual_multiplier": 0.263,
    },
    tie_word_embeddings=True,
    vision_config={
        **SIGLIP_BASE,
        "model_type": "granite_docling_vision",
        "deepstack_visual_indexes": [3, 7, 10],
        "out_hidden_size": 1024,
        "scale_factor": 4,
        "use_fine_route": True,
    },
)
SERVED["ibm-granite/granite-for-docling-500m"][IMAGES] = {
    "crop_to_patches": True,
    "max_patches": 32,
    "size": {"height": 512, "width": 512},
}
SERVED["ibm-granite/granite-docling-258M"] = idefics3(
    "idefics3",
    {**inner("llama", 576, 1536, 30, 9, 3, 100352), "head_dim": 64, "rope_theta": 100000.0},
    {**SIGLIP_BASE, "model_type": "idefics3_vision"},
    4,
    2048,
)
EXAONE = {
    **inner("exaone4_5_text", 5120, 27392, 64, 40, 8, 153600),
    "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 16,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "factor": 16.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
}
"""As its first files name it, with a pattern in letters."""
SERVED["LGAI-EXAONE/EXAONE-4.5-33B"] = plain(
    "exaone4_5",
    image_token_id=67,
    text_config=EXAONE,
    tie_word_embeddings=False,
    video_token_id=68,
    vision_config={
        "model_type": "exaone4_5_vision",
        "depth": 28,
        "fullatt_block_indexes": [6, 13, 20, 27],
        "hidden_size": 2048,
        "in_channels": 3,
        "in_chans": 3,
        "intermediate_size": 5120,
        "num_heads": 32,
        "num_key_value_heads": 8,
        "out_hidden_size": 5120,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 112,
    },
)
SERVED["tencent/HunyuanOCR"] = plain(
    "hunyuan_vl",
    **{
        key: value
        for key, value in inner("", 1024, 3584, 24, 16, 8, 120818).items()
        if key != "model_type"
    }
    | {"tie_word_embeddings": True, "rope_theta": 10000.0},
    attention_head_dim=128,
    head_dim=128,
    max_position_embeddings=32768,
    org_vocab_size=120818,
    pad_id=120002,
    rms_norm_eps=1e-5,
    rope_scaling={
        "alpha": 1000.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "type": "xdrope",
        "xdrope_section": [16, 16, 16, 16],
    },
    use_qk_norm=True,
    vision_config={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "interpolate_mode": "bilinear",
        "max_image_size": 2048,
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 27,
        "out_hidden_size": 1024,
        "patch_size": 16,
        "rms_norm_eps": 1e-5,
        "spatial_merge_size": 2,
    },
)
"""Its text model's fields stand flat beside the tower's, as Tencent wrote it."""
SERVED["tencent/HunyuanOCR"][IMAGES] = {
    "max_pixels": 4194304,
    "merge_size": 2,
    "min_pixels": 262144,
    "patch_size": 16,
    "resample": 1,
    "temporal_patch_size": 1,
}
LFM2 = {
    "block_auto_adjust_ff_dim": True,
    "block_dim": 2048,
    "block_ff_dim": 12288,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_dim": 2048,
    "norm_eps": 1e-5,
    "num_heads": 32,
    "rope_theta": 1e6,
    "use_pos_enc": True,
}
"""Of its text model, with fields of older releases."""
SERVED["LiquidAI/LFM2-VL-1.6B"] = plain(
    "lfm2_vl",
    downsample_factor=2,
    encoder_patch_size=16,
    max_pixels_tolerance=1.5,
    projector_bias=True,
    projector_hidden_act="gelu",
    projector_hidden_size=2560,
    text_config={
        **inner("lfm2", 2048, 12288, 16, 32, 8, 65536),
        **LFM2,
        "layer_types": [
            "full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)
        ],
    },
    tile_size=512,
    use_thumbnail=True,
    vision_config={
        **SO400M,
        "num_hidden_layers": 26,
        "patch_size": 16,
        "model_type": "siglip2_vision_model",
        "num_patches": 256,
        "vision_use_head": False,
    },
)
del SERVED["LiquidAI/LFM2-VL-1.6B"][CONFIG]["text_config"]["tie_word_embeddings"]
SERVED["LiquidAI/LFM2-VL-1.6B"][IMAGES] = {
    "do_image_splitting": True,
    "do_resize": False,
    "downsample_factor": 2,
    "encoder_patch_size": 16,
    "max_image_tokens": 256,
    "max_num_patches": 1024,
    "max_pixels_tolerance": 2.0,
    "max_tiles": 10,
    "min_image_tokens": 64,
    "min_tiles": 2,
    "patch_size": 16,
    "resample": 3,
    "size": {"height": 512, "width": 512},
    "tile_size": 512,
    "use_thumbnail": True,
}
LATENT = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 384,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "tie_word_embeddings": False,
}
SERVED["moonshotai/Kimi-K2.5"] = plain(
    "kimi_k25",
    media_placeholder_token_id=163605,
    text_config={
        **inner("deepseek_v3", 7168, 18432, 61, 64, 64, 163840),
        **LATENT,
        "num_nextn_predict_layers": 0,
        "rope_theta": 50000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 64.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    },
    tie_word_embeddings=False,
    use_unified_vision_chunk=True,
    vision_config={
        "init_pos_emb_height": 64,
        "init_pos_emb_time": 4,
        "init_pos_emb_width": 64,
        "merge_kernel_size": [2, 2],
        "merge_type": "sd2_tpool",
        "mm_hidden_size": 1152,
        "model_type": "",
        "patch_size": 14,
        "text_hidden_size": 7168,
        "vt_hidden_size": 1152,
        "vt_intermediate_size": 4304,
        "vt_num_attention_heads": 16,
        "vt_num_hidden_layers": 27,
    },
    **REMOTE,
)
SERVED["mistralai/Mistral-Small-4-119B-2603"] = plain(
    "mistral3",
    image_token_index=10,
    multimodal_projector_bias=False,
    projector_hidden_act="gelu",
    spatial_merge_size=2,
    text_config={
        **inner("mistral4", 4096, 12288, 36, 32, 32, 131072),
        **LATENT,
        "q_lora_rank": 1024,
        "kv_lora_rank": 256,
        "qk_nope_head_dim": 64,
        "qk_head_dim": 128,
        "head_dim": 128,
        "n_routed_experts": 128,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 0,
        "rope_interleave": True,
        "rope_parameters": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 128.0,
            "llama_4_scaling_beta": 0.1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 8192,
            "partial_rotary_factor": 0.5,
            "rope_theta": 10000.0,
            "rope_type": "yarn",
            "type": "yarn",
        },
        "sliding_window": None,
    },
    tie_word_embeddings=False,
    vision_config={
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "image_size": 1540,
        "intermediate_size": 4096,
        "model_type": "pixtral",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    vision_feature_layer=-1,
)
OF_TIMM: dict[str, Files] = {
    "google/gemma-3n-E4B-it": plain(
        "gemma3n",
        text_config={
            **inner("gemma3n_text", 2048, 16384, 35, 8, 2, 262400),
            "tie_word_embeddings": True,
            "intermediate_size": [16384] * 35,
            "head_dim": 256,
            "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 25,
            "num_kv_shared_layers": 15,
        },
        vision_config={"model_type": "gemma3n_vision", "hidden_size": 2048},
        audio_config={"model_type": "gemma3n_audio", "hidden_size": 1536},
    ),
}
"""Whose towers are of timm: served where that is installed."""
SERVED["LanguageBind/Video-LLaVA-7B-hf"] = plain(
    "video_llava",
    text_config=llama(4096, 11008, 32, 32, 32, 32064),
    vision_config={**CLIP, "image_size": 224},
    tie_word_embeddings=False,
)
SERVED["LanguageBind/Video-LLaVA-7B-hf"][IMAGES] = {
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 224},
}
TOWERLESS: dict[str, Files] = {
    "PaddlePaddle/PP-Chart2Table_safetensors": plain(
        "pp_chart2table",
        text_config={
            **inner("qwen2", 1024, 2816, 24, 16, 16, 151860),
            "tie_word_embeddings": True,
        },
        vision_config={"hidden_size": 768, "num_hidden_layers": 12, "image_size": 1024},
    ),
}
"""Their decoders are served, their towers are not: no other takes their place."""

REFUSED: dict[str, Files] = {
    "OpenGVLab/InternVL2_5-8B": plain("internvl_chat", **REMOTE),
    "deepseek-ai/deepseek-vl2-small": plain("deepseek_vl_v2", **REMOTE),
    "openbmb/MiniCPM-V-2_6": plain("minicpmv", **REMOTE),
    "microsoft/Phi-3.5-vision-instruct": plain("phi3_v", **REMOTE),
    "baidu/Unlimited-OCR": plain("unlimited_ocr"),
    "baidu/ERNIE-4.5-VL-28B-A3B-Thinking": plain("ernie4_5_moe_vl", **REMOTE),
    "DAMO-NLP-SG/VideoLLaMA3-7B": plain("videollama3_qwen2", **REMOTE),
    "microsoft/Phi-4-multimodal-instruct": plain("phi4mm", **REMOTE),
    "liuhaotian/llava-v1.5-7b": plain("llava_llama"),
    "lmms-lab/llava-onevision-qwen2-7b-ov": plain("llava_qwen"),
    "allenai/Molmo-7B-D-0924": plain("molmo", **REMOTE),
    "moonshotai/Kimi-VL-A3B-Instruct": plain("kimi_vl", **REMOTE),
    "nvidia/NVLM-D-72B": plain("NVLM_D", **REMOTE),
}
"""Of code that comes with the model, or in a form that no class of transformers reads."""
