"""Aya Vision: tiles of 364 pixels and the whole image beside several, 169 tokens each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import CONFIG, ImageFiles
from workbench.visual.internvl import InternVL

UNSAID = {"image_size": 224, "patch_size": 16}
"""What transformers' class of the tower, SigLIP's, has where a vision_config leaves it out."""


@dataclass(frozen=True)
class AyaVision(InternVL):
    """InternVL's tiles, chosen as there. A frame of a video is an image: it has no rule for them.

    That images are tiled is AyaVisionProcessor's own setting.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/CohereLabs/aya-vision-8b config.json and"
        " preprocessor_config.json; AyaVisionProcessor and GotOcr2ImageProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("aya-vision-",)
    kind: ClassVar[str] = "aya_vision"
    """The outer model type of a config.json that it serves."""

    image_size: int = 364

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == self.kind and isinstance(
            config.get("vision_config"), Mapping
        )

    def shuffle_of(self, files: ImageFiles) -> tuple[str, int]:
        factor = files.config.get("downsample_factor")
        files.take("shuffle", 2 if factor is None else factor, CONFIG)
        shuffle = files.taken["shuffle"][0]
        return f"downsample_factor {shuffle}", shuffle

    def read(self, files: ImageFiles) -> None:
        for name, unsaid in UNSAID.items():
            stated = files.tower.get(name)
            files.side(name, unsaid if stated is None else stated, CONFIG)
        super().read(files)

    def markers_of_image(self, width: int, height: int) -> int:
        return 2 + self.num_tiles(width, height)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_of_image(width, height)


VISIONS.add("aya-vision", AyaVision())
