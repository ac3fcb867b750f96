"""GOT-OCR 2: Qwen's form with as many key heads as query heads, under SAM."""

from workbench.lvlm.models import MODELS, Model

MODELS.add(
    "got-ocr-2",
    Model(
        "qwen2",
        {
            "vocab_size": 151860,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "use_sliding_window": False,
            "tie_word_embeddings": True,
        },
        "config.json of stepfun-ai/GOT-OCR-2.0-hf, by the defaults of transformers' GotOcr2Config",
        around={
            "model_type": "got_ocr2",
            "vision_config": {
                "model_type": "got_ocr2_vision",
                "hidden_size": 768,
                "mlp_dim": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 1024,
                "patch_size": 16,
                "window_size": 14,
                "global_attn_indexes": [2, 5, 8, 11],
                "output_channels": 256,
            },
            "tie_word_embeddings": True,
        },
    ),
)
