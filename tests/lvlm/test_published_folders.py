"""Folders as they are published: fields left to transformers' defaults, sections with fields of
older releases, processors' files beside. Each is the catalogue's model, with its tower and tokens.
"""

import json

import pytest

from tests.lvlm.published import CLIP, SERVED, SO400M
from workbench.lvlm.configs.fields import SIZES, TOWER_SIZES
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import own_tower, tower_of
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

PERCEIVER = {
    "model_type": "vllama3",
    "hidden_act": "silu",
    "num_key_value_heads": 1,
    "resampler_depth": 6,
    "resampler_head_dim": 96,
    "resampler_n_heads": 16,
}
PREPARED = "preprocessor_config.json"
PROCESSOR = "processor_config.json"

FOLDERS = {
    "qwen3.5-27b": {
        "config.json": {
            "architectures": ["Qwen3_5ForConditionalGeneration"],
            "model_type": "qwen3_5",
            "image_token_id": 248056,
            "video_token_id": 248057,
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "qwen3_5_text",
                "attention_bias": False,
                "attn_output_gate": True,
                "full_attention_interval": 4,
                "head_dim": 256,
                "hidden_size": 5120,
                "intermediate_size": 17408,
                "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 16,
                "linear_conv_kernel_dim": 4,
                "linear_key_head_dim": 128,
                "linear_num_key_heads": 16,
                "linear_num_value_heads": 48,
                "linear_value_head_dim": 128,
                "mamba_ssm_dtype": "float32",
                "max_position_embeddings": 262144,
                "mtp_num_hidden_layers": 1,
                "num_attention_heads": 24,
                "num_hidden_layers": 64,
                "num_key_value_heads": 4,
                "partial_rotary_factor": 0.25,
                "rms_norm_eps": 1e-06,
                "rope_parameters": {
                    "mrope_interleaved": True,
                    "mrope_section": [11, 11, 10],
                    "rope_theta": 10000000,
                    "rope_type": "default",
                },
                "vocab_size": 248320,
            },
            "vision_config": {
                "model_type": "qwen3_5",
                "deepstack_visual_indexes": [],
                "depth": 27,
                "hidden_size": 1152,
                "in_channels": 3,
                "intermediate_size": 4304,
                "num_heads": 16,
                "num_position_embeddings": 2304,
                "out_hidden_size": 5120,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
        },
    },
    "llava-1.5-7b": {
        "config.json": {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "ignore_index": -100,
            "image_token_index": 32000,
            "pad_token_id": 32001,
            "projector_hidden_act": "gelu",
            "vision_config": CLIP,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "llama",
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-05,
                "vocab_size": 32064,
            },
        },
        PREPARED: {"crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336}},
        PROCESSOR: {"patch_size": 14, "vision_feature_select_strategy": "default"},
    },
    "llava-next-mistral-7b": {
        "config.json": {
            "model_type": "llava_next",
            "image_token_index": 32000,
            "vision_config": CLIP,
            "use_image_newline_parameter": True,
            "tie_word_embeddings": False,
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            "text_config": {
                "model_type": "mistral",
                "intermediate_size": 14336,
                "num_key_value_heads": 8,
                "rms_norm_eps": 1e-05,
                "rope_theta": 1000000.0,
                "sliding_window": None,
                "vocab_size": 32064,
                "max_position_embeddings": 32768,
            },
        },
        PREPARED: {
            "aspect_ratio_setting": "anyres",
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
        },
    },
    "llava-onevision-0.5b": {
        "config.json": {
            "model_type": "llava_onevision",
            "vision_aspect_ratio": "anyres_max_9",
            "vision_config": {
                **SO400M,
                "num_hidden_layers": 26,
                "image_size": 384,
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
            },
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_attention_heads": 14,
                "num_hidden_layers": 24,
                "num_key_value_heads": 2,
                "tie_word_embeddings": True,
                "max_window_layers": 24,
                "vocab_size": 152000,
            },
        },
        PREPARED: {"crop_size": None, "size": {"height": 384, "width": 384}, "do_pad": True},
    },
    "internvl3-8b": {
        "config.json": {
            "model_type": "internvl",
            "downsample_ratio": 0.5,
            "image_seq_length": 256,
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 3584,
                "moe_config": None,
                "intermediate_size": 18944,
                "num_attention_heads": 28,
                "num_hidden_layers": 28,
                "num_key_value_heads": 4,
                "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
                "rope_theta": 1000000.0,
                "tie_word_embeddings": False,
                "vocab_size": 151674,
                "max_position_embeddings": 32768,
            },
            "vision_config": {
                "model_type": "internvl_vision",
                "attention_bias": True,
                "architectures": ["InternVisionModel"],
                "dropout": 0.0,
                "image_size": [448, 448],
                "patch_size": [14, 14],
                "initializer_factor": 0.1,
                "use_qk_norm": False,
            },
        },
        PREPARED: {
            "crop_to_patches": False,
            "max_patches": 12,
            "min_patches": 1,
            "size": {"height": 448, "width": 448},
        },
        PROCESSOR: {"image_seq_length": 256, "processor_class": "InternVLProcessor"},
    },
    "idefics3-8b": {
        "config.json": {
            "model_type": "idefics3",
            "scale_factor": 2,
            "image_token_id": 128257,
            "vision_config": {**SO400M, "image_size": 364, "model_type": "idefics3"},
            "text_config": {
                "model_type": "llama",
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "qk_layer_norms": False,
                "perceiver_config": PERCEIVER,
                "tie_word_embeddings": False,
                "vocab_size": 128259,
            },
        },
        PREPARED: {
            "size": {"longest_edge": 1456},
            "max_image_size": {"longest_edge": 364},
            "do_image_splitting": True,
        },
    },
    "smolvlm2-2.2b": {
        "config.json": {
            "model_type": "smolvlm",
            "scale_factor": 3,
            "vocab_size": 49280,
            "tie_word_embeddings": False,
            "vision_config": {
                **SO400M,
                "image_size": 384,
                "model_type": "smolvlm_vision",
                "max_image_size": {"longest_edge": 384},
                "size": {"longest_edge": 1920},
                "use_base_siglip": False,
            },
            "text_config": {
                "model_type": "llama",
                "hidden_size": 2048,
                "head_dim": 64,
                "intermediate_size": 8192,
                "num_attention_heads": 32,
                "num_hidden_layers": 24,
                "num_key_value_heads": 32,
                "is_llama_config": True,
                "pixel_shuffle_factor": 3,
                "perceiver_config": PERCEIVER,
                "vocab_size": 49280,
            },
        },
        PREPARED: {
            "size": {"longest_edge": 1536},
            "max_image_size": {"longest_edge": 384},
            "do_image_splitting": True,
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 384}},
        },
    },
    "pixtral-12b": {
        "config.json": {
            "model_type": "llava",
            "image_seq_length": 1,
            "image_token_index": 10,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_config": {
                "model_type": "pixtral",
                "head_dim": 64,
                "hidden_act": "silu",
                "image_size": 1024,
                "patch_size": 16,
                "rope_theta": 10000.0,
                "is_composition": True,
            },
            "text_config": {
                "model_type": "mistral",
                "hidden_size": 5120,
                "head_dim": 128,
                "intermediate_size": 14336,
                "num_hidden_layers": 40,
                "num_key_value_heads": 8,
                "rope_theta": 1000000000.0,
                "sliding_window": None,
                "vocab_size": 131072,
            },
        },
        PREPARED: {"patch_size": {"height": 16, "width": 16}, "size": {"longest_edge": 1024}},
        PROCESSOR: {"image_break_token": "[IMG_BREAK]", "patch_size": 16},
    },
    "mistral-small-3.1-24b": {
        "config.json": {
            "model_type": "mistral3",
            "multimodal_projector_bias": False,
            "spatial_merge_size": 2,
            "vision_config": {
                "model_type": "pixtral",
                "head_dim": 64,
                "hidden_act": "silu",
                "hidden_size": 1024,
                "image_size": 1540,
                "patch_size": 14,
                "intermediate_size": 4096,
                "rope_theta": 10000.0,
            },
            "text_config": {
                "model_type": "mistral",
                "hidden_size": 5120,
                "head_dim": 128,
                "intermediate_size": 32768,
                "num_hidden_layers": 40,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "rope_theta": 1000000000.0,
                "sliding_window": None,
                "vocab_size": 131072,
            },
        },
        PREPARED: {"patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 1540}},
        PROCESSOR: {"patch_size": 14, "spatial_merge_size": 2},
    },
}


def write(folder, files):
    for file, fields in files.items():
        (folder / file).write_text(json.dumps(fields))
    return str(folder)


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_published_folder_is_the_catalogue_s_model(name, tmp_path):
    folder, catalogue = resolve(write(tmp_path, FOLDERS[name])), resolve(name)
    for field in (*SIZES, "tie_word_embeddings"):
        assert getattr(folder.config, field, None) == getattr(catalogue.config, field, None), field
    pair = (folder.whole.vision_config, catalogue.whole.vision_config)
    for field in (*TOWER_SIZES, "attention_bias", "use_qk_norm", "vision_use_head"):
        ours, theirs = (getattr(config, field, None) for config in pair)
        assert ours == theirs or [*ours] == [*theirs], field
    assert own_tower(folder) == own_tower(catalogue)
    assert tower_of(folder).tokens_each == tower_of(catalogue).tokens_each
    for size in ("1280x720", "300x900", "448x448"):
        one, other = (tokens(n, resolution=size) for n in (folder.name, name))
        assert one["num_visual"] == other["num_visual"]
        assert one.get("markers") == other.get("markers")
    assert tower_of(folder).front.max_frames == tower_of(catalogue).front.max_frames


@pytest.mark.parametrize("name", sorted(n for n in MODELS if MODELS[n].around))
def test_a_catalogue_entry_written_to_a_folder_is_served_alike(name, tmp_path):
    folder = resolve(write(tmp_path, {"config.json": MODELS[name].stated()}))
    catalogue = resolve(name)
    assert folder.config.to_dict() == catalogue.config.to_dict()
    assert own_tower(folder) == own_tower(catalogue)
    assert type(tower_of(folder)) is type(tower_of(catalogue))


def test_text_fields_that_only_an_older_release_reads(tmp_path):
    """GLM-4.1V as transformers 4 had it: today's class would take its own defaults."""
    fields = dict(SERVED["zai-org/GLM-4.1V-9B-Thinking"]["config.json"])
    text = fields.pop("text_config")
    config = {**text, "max_position_embeddings": 65536, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = resolve(str(tmp_path))
    turning = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}
    assert turning.items() <= model.config.rope_parameters.items()
    assert model.config.max_position_embeddings == 65536
    assert any("no longer reads them; they are read as transformers 4" in f for f in model.flags)
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert resolve(str(tmp_path)).config.num_hidden_layers == 3


@pytest.mark.parametrize(("least", "most"), [(1003520, 12845056), (3136, 401408)])
def test_limits_that_leave_no_image_of_1024_tokens_are_flagged(least, most, tmp_path):
    """256 to 1,280 tokens an image is what Qwen's own page suggests to set."""
    files = dict(SERVED["Qwen/Qwen2.5-VL-3B-Instruct"])
    tower = tower_of(resolve(write(tmp_path, files)))
    assert tower.flags == []
    files[PREPARED] = {**files[PREPARED], "min_pixels": least, "max_pixels": most}
    tower = tower_of(resolve(write(tmp_path, files)))
    (flag,) = tower.flags
    assert f"whose images have {least:,} to {most:,} pixels; give --image" in flag
    if least > 3136:
        with pytest.raises(RequestError, match=r"num_visual 512: .*the nearest are 0 and 1024"):
            tower.grids(512)


@pytest.mark.parametrize(
    "name",
    sorted(n for n in MODELS if MODELS[n].around and MODELS[n].family.startswith(("qwen", "glm"))),
)
def test_an_image_of_the_catalogue_is_within_its_limits(name):
    assert not any(flag.startswith("image: ") for flag in tower_of(resolve(name)).flags)
