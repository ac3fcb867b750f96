"""LLaVA-NeXT-Video: images as LLaVA-NeXT has them; a frame is one square, pooled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS
from workbench.visual.llava_next import LlavaNext


@dataclass(frozen=True)
class LlavaNextVideo(LlavaNext):
    """A frame is pooled 2 × 2: 12 × 12 tokens, without a newline."""

    source: ClassVar[str] = (
        "the defaults of LlavaNextVideoConfig in transformers; its get_video_features for frames"
    )
    models: ClassVar[tuple[str, ...]] = ("llava-next-video-",)

    frame_pool: int = 2
    """Patches a side of a token of a frame."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[0])
        dropped = config.get("vision_feature_select_strategy", "default") == "default"
        return config.get("model_type") == "llava_next_video" and kind == TOWERS[0] and dropped

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        files.take("frame_pool", files.config.get("spatial_pool_stride"), CONFIG)
        if files.videos is not None:
            file, fields = files.videos
            files.side("image_size", fields.get("crop_size", fields.get("size")), file)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return (self.side // self.frame_pool) ** 2


VISIONS.add("llava-next-video", LlavaNextVideo())
