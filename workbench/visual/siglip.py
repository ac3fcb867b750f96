"""SigLIP so400m/14 at 384 pixels, the tower of D-Attn's paper: any image becomes one square."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd

IMAGE_SIZE = 384
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE
SEEING = (
    "vision_config",
    "vision_tower",
    "mm_vision_tower",
    "text_config",
    "llm_config",
    "audio_config",
    "image_processor",
)
"""Fields of a config.json that is not a plain text model's."""


@dataclass(frozen=True)
class SigLIP(FrontEnd):
    """27 × 27 patches of 14 pixels, no class token; for text models, as in the paper."""

    source: ClassVar[str] = "https://huggingface.co/google/siglip-so400m-patch14-384 config.json"
    models: ClassVar[tuple[str, ...]] = ("",)

    image_size: int = IMAGE_SIZE
    patch_size: int = PATCH_SIZE

    def serves(self, config: Mapping[str, Any]) -> bool:
        return not any(config.get(name) is not None for name in SEEING)

    def tokens_of_image(self, width: int, height: int) -> int:
        return (self.image_size // self.patch_size) ** 2


VISIONS.add("siglip", SigLIP())
