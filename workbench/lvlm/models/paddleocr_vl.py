"""PaddleOCR-VL: ERNIE 4.5's small layer under M-RoPE, its heads wide beside the hidden size."""

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add(
    "paddleocr_vl",
    MRope(
        "paddleocr_vl_text",
        "paddleocr_vl",
        "PaddleOCR",
        llama_like,
        config_name="PaddleOCRTextConfig",
        lm_name="PaddleOCRVLForConditionalGeneration",
    ),
)

MODELS.add(
    "paddleocr-vl-0.9b",
    Model(
        "paddleocr_vl",
        {
            "vocab_size": 103424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500000.0,
                "mrope_section": [16, 24, 24],
            },
            "use_bias": False,
            "tie_word_embeddings": False,
        },
        "config.json of PaddlePaddle/PaddleOCR-VL; vocab_size: the default of transformers' "
        "PaddleOCRTextConfig, made for it",
        tower="paddleocr_vl",
        around={
            "model_type": "paddleocr_vl",
            "vision_config": {
                "model_type": "paddleocr_vl_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 384,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
            "tie_word_embeddings": False,
        },
    ),
)
