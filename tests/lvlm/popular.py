"""More folders of hub ids as people have them: fine-tunes, other sizes, quantised forms.

Written from memory of what was published: files of older releases, whose sections state what
deviates from a class's defaults, the scheme of a quantised checkpoint, processors' files beside.
"""

from typing import Any

from tests.lvlm.published import (
    BASE,
    BOTH,
    CLIP,
    CONFIG,
    GLM_9B,
    GLM_106B,
    IMAGES,
    SERVED,
    SO400M,
    Files,
    experts,
    gemma3,
    glm,
    inner,
    internvl,
    llama,
    llava,
    llava_next,
    mistral3,
    paligemma2,
    qwen2,
    qwen2_5_tower,
    qwen2_tower,
    qwen3,
    small_24b,
)

TOWER = ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
GATED = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
NF4 = {
    "quant_method": "bitsandbytes",
    "_load_in_4bit": True,
    "_load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": True,
    "load_in_8bit": False,
}


def hub(files: Files, kind: str, dtype: str = "bfloat16", **own: Any) -> Files:
    """With what every published file says of its class, and fields of its own."""
    said = {"architectures": [kind], "torch_dtype": dtype, "transformers_version": "4.50.0"}
    return {**files, CONFIG: {**files[CONFIG], **said, **own}}


def nested(files: Files) -> Files:
    """As releases from 4.52 write it: the text model's fields in a section, and still outside."""
    config = dict(files[CONFIG])
    outer = ("vision_config", "model_type", "architectures", "quantization_config")
    text = {key: value for key, value in config.items() if key not in outer}
    turning = {**config["rope_scaling"], "type": "default", "rope_type": "default"}
    text |= {"model_type": f"{config['model_type']}_text", "rope_scaling": turning}
    tower = {**config["vision_config"], "model_type": config["model_type"]}
    return {**files, CONFIG: {**config, "text_config": text, "vision_config": tower}}


def awq(*stay: str) -> dict[str, Any]:
    return {**AWQ, "modules_to_not_convert": [*stay]}


def compressed(ignore: list[str], bits: int = 8, group: int | None = None) -> dict[str, Any]:
    """compressed-tensors: 8 bits of float with a scale a row, or 4 of int with one a group."""
    scheme = {
        "num_bits": bits,
        "type": "int" if group else "float",
        "strategy": "group" if group else "channel",
        "group_size": group,
        "dynamic": False,
        "symmetric": True,
        "actorder": None,
        "block_structure": None,
        "observer_kwargs": {},
    }
    entering = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
    layers = {"targets": ["Linear"], "weights": scheme, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": "pack-quantized" if group else "float-quantized",
        "config_groups": {"group_0": {**layers, "input_activations": None if group else entering}},
        "ignore": ignore,
        "kv_cache_scheme": None,
        "sparsity_config": {},
    }


def blocks(*stay: str) -> dict[str, Any]:
    """8 bits of float with a scale a block of 128 × 128."""
    return {**BLOCKS, "weight_block_size": [128, 128], "modules_to_not_convert": [*stay]}


def tower_of_qwen3(depth: int = 27) -> list[str]:
    """The linear layers of Qwen3-VL's tower by name, as its quantised files list them."""
    merging = [f"model.visual.merger.linear_fc{n}" for n in (1, 2)]
    merging += [
        f"model.visual.deepstack_merger_list.{i}.linear_fc{n}" for i in range(3) for n in (1, 2)
    ]
    return merging + [f"model.visual.blocks.{i}.{name}" for i in range(depth) for name in TOWER]


def routers(layers: int, first: int = 0) -> list[str]:
    return [f"model.language_model.layers.{i}.mlp.gate" for i in range(first, layers)]


def qwen3_5(hidden: int, layers: int, heads: tuple[int, int, int], **own: Any) -> Files:
    """``heads`` are those of queries, of keys and values, and of linear layers' values."""
    moe = "num_experts" in own
    kind, (queries, keys, values) = "qwen3_5_moe" if moe else "qwen3_5", heads
    text = {
        "model_type": f"{kind}_text",
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_size": hidden,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * (layers // 4),
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": values,
        "linear_value_head_dim": 128,
        "mamba_ssm_dtype": "float32",
        "mtp_num_hidden_layers": 1,
        "num_attention_heads": queries,
        "num_hidden_layers": layers,
        "num_key_value_heads": keys,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000000,
            "rope_type": "default",
        },
        "vocab_size": 248320,
        **own,
    }
    files = qwen3(hidden, 0, layers, queries, small=False)
    tower = {**files[CONFIG]["vision_config"], "model_type": kind, "deepstack_visual_indexes": []}
    config = {"model_type": kind, "text_config": text, "vision_config": tower}
    return {**files, CONFIG: {**config, "tie_word_embeddings": False}}


def small_parts(layers: int) -> list[str]:
    """Of Qwen3.5's linear layers, what its FP8 files leave alone."""
    return [
        f"model.language_model.layers.{i}.linear_attn.{name}"
        for i in range(layers)
        if i % 4 != 3
        for name in ("conv1d", "in_proj_a", "in_proj_b")
    ]


def pixtral_llava(text: dict[str, Any], **tower: Any) -> Files:
    """Pixtral behind LLaVA's class: its tower's section states what deviates."""
    vision = {"model_type": "pixtral", "head_dim": 64, "image_size": 1024, "patch_size": 16}
    own = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    ids = {"image_token_index": 10, "image_seq_length": 1}
    files = llava(text, vision_config={**vision, "rope_theta": 10000.0, **tower}, **own, **ids)
    prepared = {"patch_size": {"height": 16, "width": 16}, "size": {"longest_edge": 1024}}
    return {**files, IMAGES: prepared, BOTH: {"patch_size": 16, "image_token": "[IMG]"}}


def nemo(layers: int = 40, **own: Any) -> dict[str, Any]:
    """The text model of Pixtral 12B; its file leaves heads and ties to the class."""
    text = inner("mistral", 5120, 14336, layers, 32, 8, 131072) | {"rope_theta": 1e9}
    for field in ("num_attention_heads", "tie_word_embeddings"):
        del text[field]
    return {**text, "head_dim": 128, "sliding_window": None, "is_composition": True, **own}


def smol(kind: str, hidden: int, mlp: int, heads: int, groups: int) -> Files:
    text = llama(hidden, mlp, 30, heads, groups, 49280, head_dim=64, rope_theta=100000)
    perceiver = {"model_type": "vllama3", "num_key_value_heads": 1, "resampler_depth": 6}
    text |= {"is_llama_config": True, "perceiver_config": perceiver, "use_resampler": False}
    tower = {**BASE, "max_image_size": {"longest_edge": 512}, "size": {"longest_edge": 2048}}
    tower["model_type"] = "smolvlm_vision" if kind == "smolvlm" else kind
    config = {"model_type": kind, "scale_factor": 4, "text_config": text, "vision_config": tower}
    prepared = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
    named = {CONFIG: {**config, "vocab_size": 49280, "tie_word_embeddings": False}}
    return {**named, IMAGES: {**prepared, "do_image_splitting": True}, BOTH: {"image_seq_len": 64}}


def idefics2() -> Files:
    """Its text model's section states what deviates from Mistral 7B."""
    config = {
        "model_type": "idefics2",
        "image_token_id": 32001,
        "perceiver_config": {
            "model_type": "idefics2",
            "num_key_value_heads": 4,
            "resampler_depth": 3,
            "resampler_head_dim": 96,
            "resampler_n_heads": 16,
            "resampler_n_latents": 64,
        },
        "text_config": {
            "model_type": "mistral",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": 4096,
            "vocab_size": 32003,
        },
        "tie_word_embeddings": False,
        "vision_config": {**SO400M, "model_type": "idefics2", "image_size": 980},
    }
    size = {"longest_edge": 980, "shortest_edge": 378}
    return {CONFIG: config, IMAGES: {"do_image_splitting": False, "size": size}}


def mllama(layers: int, hidden: int, mlp: int, heads: int) -> Files:
    turning = {
        "rope_type": "llama3",
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    }
    text = {
        **llama(hidden, mlp, layers, heads, 8, 128256),
        "model_type": "mllama_text_model",
        "cross_attention_layers": [*range(3, layers, 5)],
        "rope_scaling": turning,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    }
    tower = {
        "model_type": "mllama_vision_model",
        "attention_heads": 16,
        "hidden_size": 1280,
        "image_size": 560,
        "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "intermediate_size": 5120,
        "max_num_tiles": 4,
        "num_global_layers": 8,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "supported_aspect_ratios": [[1, n] for n in (1, 2, 3, 4)]
        + [[2, 1], [2, 2], [3, 1], [4, 1]],
        "vision_output_dim": 7680,
    }
    config = {"model_type": "mllama", "text_config": text, "vision_config": tower}
    prepared = {"max_image_tiles": 4, "size": {"height": 560, "width": 560}}
    return {CONFIG: config, IMAGES: prepared}


def maverick() -> Files:
    """Experts in every second layer. Its file has a number where today's class takes a truth."""
    text = {
        **llama(5120, 8192, 48, 40, 8, 202048),
        "model_type": "llama4_text",
        "attention_chunk_size": 8192,
        "attn_scale": 0.1,
        "attn_temperature_tuning": 4,
        "floor_scale": 8192,
        "for_llm_compressor": False,
        "head_dim": 128,
        "interleave_moe_layer_step": 2,
        "intermediate_size_mlp": 16384,
        "max_position_embeddings": 1048576,
        "no_rope_layers": [],
        "num_experts_per_tok": 1,
        "num_local_experts": 128,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "use_qk_norm": False,
    }
    tower = {
        "model_type": "llama4_vision_model",
        "hidden_size": 1408,
        "image_size": 336,
        "intermediate_size": 5632,
        "num_attention_heads": 16,
        "num_hidden_layers": 34,
        "patch_size": 14,
        "pixel_shuffle_ratio": 0.5,
        "projector_input_dim": 4096,
        "projector_output_dim": 4096,
        "rope_theta": 10000,
        "vision_output_dim": 4096,
    }
    config = {"model_type": "llama4", "text_config": text, "vision_config": tower}
    prepared = {"max_patches": 16, "resize_to_max_canvas": False, "size": {"height": 336}}
    prepared["size"]["width"] = 336
    return {CONFIG: {**config, "tie_word_embeddings": False}, IMAGES: prepared}


QWEN2_VL, QWEN2_5_VL = "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"
QWEN3_VL, MISTRAL3 = "Qwen3VLForConditionalGeneration", "Mistral3ForConditionalGeneration"
LLAVA, GEMMA3 = "LlavaForConditionalGeneration", "Gemma3ForConditionalGeneration"
SIZES_7B = (152064, 3584, 18944, 28, 28, 4)
INTERNVL = "InternVLForConditionalGeneration"


def of_7b(**own: Any) -> Files:
    return hub(qwen2("qwen2_5_vl", SIZES_7B, qwen2_5_tower(3420, 3584)), QWEN2_5_VL, **own)


def without(files: Files, *fields: str) -> Files:
    """A file that leaves these fields of its own and of its text model's to the classes."""
    config = {key: value for key, value in files[CONFIG].items() if key not in fields}
    text = {key: value for key, value in config["text_config"].items() if key not in fields}
    return {**files, CONFIG: {**config, "text_config": text}}


TIED = "tie_word_embeddings"
POPULAR: dict[str, Files] = {
    "ByteDance-Seed/UI-TARS-2B-SFT": hub(
        qwen2("qwen2_vl", (151936, 1536, 8960, 28, 12, 2), qwen2_tower(1536), tied=True), QWEN2_VL
    ),
    "opendatalab/MinerU2.5-2509-1.2B": hub(
        qwen2("qwen2_vl", (151936, 896, 4864, 24, 14, 2), qwen2_tower(896), tied=True),
        QWEN2_VL,
        rope_scaling={"mrope_section": [16, 8, 8], "rope_type": "default", "type": "default"},
    ),
    "nanonets/Nanonets-OCR-s": nested(
        hub(
            qwen2("qwen2_5_vl", (151936, 2048, 11008, 36, 16, 2), qwen2_5_tower(3420, 2048), True),
            QWEN2_5_VL,
        )
    ),
    "XiaomiMiMo/MiMo-VL-7B-RL-2508": hub(
        qwen2("qwen2_5_vl", (151680, 4096, 11008, 36, 32, 8), qwen2_5_tower(3456, 4096)),
        QWEN2_5_VL,
        attention_bias=True,
        head_dim=128,
    ),
    "nvidia/Cosmos-Reason1-7B": nested(of_7b()),
    "OpenGVLab/InternVL3-78B-hf": hub(
        without(internvl(inner("qwen2", 8192, 29568, 80, 64, 8, 151674), wide=True), TIED),
        INTERNVL,
    ),
    "OpenGVLab/InternVL3_5-14B-HF": hub(
        without(
            internvl(inner("qwen3", 5120, 17408, 40, 40, 8, 151936) | {"head_dim": 128}), TIED
        ),
        INTERNVL,
    ),
    "llava-hf/llava-v1.6-vicuna-13b-hf": hub(
        llava_next(llama(5120, 13824, 40, 40, 40, 32064)),
        "LlavaNextForConditionalGeneration",
        "float16",
    ),
    "llava-hf/llava-next-72b-hf": hub(
        llava_next(inner("qwen2", 8192, 24576, 80, 64, 64, 152064)),
        "LlavaNextForConditionalGeneration",
        image_token_index=151646,
    ),
    "xtuner/llava-llama-3-8b-v1_1-transformers": hub(
        llava({"model_type": "llama", "vocab_size": 128320, "intermediate_size": 14336}),
        LLAVA,
        text_config={
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "rope_theta": 500000.0,
            "vocab_size": 128320,
        },
        image_token_index=128257,
    ),
    "llava-hf/llava-interleave-qwen-0.5b-hf": {
        **hub(
            llava(inner("qwen2", 1024, 2816, 24, 16, 16, 152000) | {TIED: True}),
            LLAVA,
            vision_config={
                **SO400M,
                "num_hidden_layers": 26,
                "image_size": 384,
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
            },
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=True,
        ),
        IMAGES: {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 384, "width": 384},
        },
    },
    "nm-testing/Pixtral-Large-Instruct-2411-hf": hub(
        pixtral_llava(
            inner("mistral", 12288, 28672, 88, 96, 8, 32768) | {"head_dim": 128},
            hidden_size=1664,
            head_dim=104,
            intermediate_size=8192,
            num_attention_heads=16,
            num_hidden_layers=48,
        ),
        LLAVA,
    ),
    "ServiceNow-AI/Apriel-1.5-15b-Thinker": hub(pixtral_llava(nemo(layers=48)), LLAVA),
    "google/medgemma-4b-it": hub(
        gemma3(
            2560,
            10240,
            34,
            layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 5
            + ["sliding_attention"] * 4,
            _sliding_window_pattern=6,
            cache_implementation="hybrid",
        ),
        GEMMA3,
    ),
    "ds4sd/SmolDocling-256M-preview": hub(
        smol("idefics3", 576, 1536, 9, 3), "Idefics3ForConditionalGeneration"
    ),
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": hub(
        smol("smolvlm", 576, 1536, 9, 3), "SmolVLMForConditionalGeneration"
    ),
    "google/paligemma2-3b-mix-448": hub(
        paligemma2(448, 2304, 9216, 26, 8, 4, 256), "PaliGemmaForConditionalGeneration"
    ),
    "meta-llama/Llama-3.2-90B-Vision-Instruct": hub(
        mllama(100, 8192, 28672, 64), "MllamaForConditionalGeneration"
    ),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": hub(
        maverick(), "Llama4ForConditionalGeneration"
    ),
}
"""As they are served, weights in 16 bits."""

QUANTISED: dict[str, Files] = {
    "Qwen/Qwen2.5-VL-72B-Instruct-AWQ": hub(
        qwen2("qwen2_5_vl", (152064, 8192, 29696, 80, 64, 8), qwen2_5_tower(3456, 8192)),
        QWEN2_5_VL,
        "float16",
        quantization_config=awq("visual"),
    ),
    "Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int4": hub(
        qwen2("qwen2_vl", (152064, 8192, 29696, 80, 64, 8), qwen2_tower(8192)),
        QWEN2_VL,
        "float16",
        quantization_config={**GPTQ, "exllama_config": {"version": 1}, "use_exllama": True},
    ),
    "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit": of_7b(
        quantization_config={**NF4, "llm_int8_skip_modules": ["lm_head", "merger", "visual"]}
    ),
    "allenai/olmOCR-2-7B-1025-FP8": nested(
        of_7b(
            quantization_config=compressed(
                [f"model.visual.blocks.{i}.{name}" for i in range(32) for name in GATED]
                + ["model.visual.merger.mlp.0", "model.visual.merger.mlp.2", "lm_head"]
            )
        )
    ),
    "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8": hub(
        qwen3(4096, 12288, 94, 64, small=False, **experts(1536)),
        "Qwen3VLMoeForConditionalGeneration",
        quantization_config=blocks("lm_head", *tower_of_qwen3(), *routers(94)),
    ),
    "Qwen/Qwen3-VL-2B-Thinking-FP8": hub(
        qwen3(2048, 6144, 28, 16, small=True),
        QWEN3_VL,
        quantization_config=blocks("lm_head", *tower_of_qwen3(24)),
    ),
    "QuantTrio/Qwen3-VL-30B-A3B-Instruct-AWQ": hub(
        qwen3(2048, 6144, 48, 32, small=False, **experts(768)),
        "Qwen3VLMoeForConditionalGeneration",
        quantization_config=awq("visual", "mlp.gate", "lm_head"),
    ),
    "cpatonn/Qwen3-VL-32B-Instruct-AWQ-4bit": hub(
        qwen3(5120, 25600, 64, 64, small=False),
        QWEN3_VL,
        quantization_config=compressed([*tower_of_qwen3(), "lm_head"], bits=4, group=32),
    ),
    "Qwen/Qwen3.5-27B-FP8": hub(
        qwen3_5(5120, 64, (24, 4, 48), intermediate_size=17408),
        "Qwen3_5ForConditionalGeneration",
        quantization_config=blocks("lm_head", "mtp.fc", *tower_of_qwen3(), *small_parts(64)),
    ),
    "Qwen/Qwen3.5-27B-GPTQ-Int4": hub(
        qwen3_5(5120, 64, (24, 4, 48), intermediate_size=17408),
        "Qwen3_5ForConditionalGeneration",
        quantization_config={
            **GPTQ,
            "lm_head": False,
            "dynamic": {"lm_head": {}, "-:.*attn.*": {}, "-:.*mtp.*": {}, "-:.*visual.*": {}},
        },
    ),
    "neuralmagic/pixtral-12b-FP8-dynamic": hub(
        pixtral_llava(nemo()),
        LLAVA,
        quantization_config=compressed(
            ["re:.*lm_head", "re:vision_tower.*", "re:multi_modal_projector.*"]
        ),
    ),
    "RedHatAI/Mistral-Small-3.2-24B-Instruct-2506-FP8": hub(
        without(small_24b(), TIED),
        MISTRAL3,
        quantization_config=compressed(["re:.*lm_head", "re:.*vision.*", "re:.*multi_modal.*"]),
    ),
    "mistralai/Devstral-Small-2-24B-Instruct-2512": hub(
        mistral3(
            inner("ministral3", 5120, 32768, 40, 32, 8, 131072)
            | {
                "head_dim": 128,
                "rope_theta": None,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "type": "yarn",
                    "rope_theta": 1e8,
                    "factor": 48.0,
                    "original_max_position_embeddings": 8192,
                    "llama_4_scaling_beta": 0.1,
                    "mscale": 1.0,
                    "mscale_all_dim": 1.0,
                },
            }
        ),
        MISTRAL3,
        quantization_config={
            "quant_method": "fp8",
            "activation_scheme": "static",
            "dequantize": False,
            "modules_to_not_convert": [
                "model.vision_tower",
                "model.multi_modal_projector",
                "lm_head",
            ],
            "weight_block_size": None,
        },
    ),
    "gaunernst/gemma-3-27b-it-qat-compressed-tensors": hub(
        gemma3(
            5376,
            21504,
            62,
            head_dim=128,
            num_attention_heads=32,
            num_key_value_heads=16,
            query_pre_attn_scalar=168,
        ),
        GEMMA3,
        quantization_config=compressed(
            ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"], bits=4, group=32
        ),
    ),
    "HuggingFaceM4/idefics2-8b-chatty-AWQ": hub(
        idefics2(),
        "Idefics2ForConditionalGeneration",
        "float16",
        quantization_config=awq("vision_model", "connector"),
    ),
    "zai-org/GLM-4.5V-FP8": hub(
        glm("glm4v_moe", GLM_106B, 10944),
        "Glm4vMoeForConditionalGeneration",
        quantization_config=compressed(["lm_head", "re:.*visual.*", *routers(46, 1)]),
    ),
    "cyankiwi/GLM-4.6V-Flash-AWQ-4bit": hub(
        glm("glm4v", GLM_9B, 13696, newer=True),
        "Glm4vForConditionalGeneration",
        quantization_config=compressed(["re:.*visual.*", "lm_head"], bits=4, group=32),
    ),
    "neuralmagic/Llama-3.2-90B-Vision-Instruct-FP8-dynamic": hub(
        mllama(100, 8192, 28672, 64),
        "MllamaForConditionalGeneration",
        quantization_config=compressed(
            ["re:.*lm_head", "re:multi_modal_projector.*", "re:vision_model.*"]
        ),
    ),
}
"""Of a scheme whose bytes are told."""

KIMI = SERVED["moonshotai/Kimi-K2.5"]
QUANTISED["moonshotai/Kimi-K2.5"] = {
    CONFIG: {
        **KIMI[CONFIG],
        "dtype": "bfloat16",
        "text_config": {
            **KIMI[CONFIG]["text_config"],
            "quantization_config": compressed(
                [
                    "lm_head",
                    "re:.*self_attn.*",
                    "re:.*shared_experts.*",
                    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*",
                ],
                bits=4,
                group=32,
            ),
        },
    }
}

OWN_LLAVA: Files = {
    CONFIG: {
        **llama(4096, 11008, 32, 32, 32, 32000),
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_hidden_size": CLIP["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    }
}
"""liuhaotian/llava-v1.5-7b as it was first published: LLaVA's own form under the type that
transformers took later."""
