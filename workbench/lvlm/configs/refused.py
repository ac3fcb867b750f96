"""Model types that are refused by name, and why: what of them no part of this package expresses.

Other types that transformers knows and no family here serves are refused without a reason of
their own.
"""

OWN_FORM = "in a form of its own, of code that is never run"

REFUSED = {
    "internvl_chat": f"{OWN_FORM}; OpenGVLab's checkpoints whose names end in -hf are served",
    "deepseek_vl_v2": OWN_FORM,
    "minicpmv": OWN_FORM,
    "phi3_v": OWN_FORM,
    "phi4mm": f"{OWN_FORM}; transformers' own form of it, phi4_multimodal, is served",
    "unlimited_ocr": "its layers see a window of what they write, and all of the image and the "
    "question, whose end is no part of a layout here",
    "ernie4_5_moe_vl": f"{OWN_FORM}; transformers' own form of it, ernie4_5_vl_moe, is served",
    "videollama3_qwen2": f"{OWN_FORM}; transformers' own form of it, video_llama_3, is served",
    "llava_llama": f"{OWN_FORM}; llava-hf's checkpoints are served",
    "llava_mistral": f"{OWN_FORM}; llava-hf's checkpoints are served",
    "llava_qwen": f"{OWN_FORM}; llava-hf's checkpoints are served",
}
"""By the model type of a config.json, or of its text model's section."""
