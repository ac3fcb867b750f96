"""Video-LLaVA: an image becomes one square of CLIP L/14 at 224 pixels, and so does a frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import BOTH, CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS, Llava
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class VideoLlava(Llava):
    """LLaVA 1.5's tokens; a frame keeps the class token, whatever the strategy is."""

    source: ClassVar[str] = (
        "VideoLlavaConfig, VideoLlavaImageProcessor and VideoLlavaProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("video-llava-",)

    image_size: int = 224

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[0])
        return config.get("model_type") == "video_llava" and kind == TOWERS[0]

    def read(self, files: ImageFiles) -> None:
        for name, unsaid in (("image_size", 224), ("patch_size", 14)):
            if files.tower.get(name) is None:
                files.side(name, unsaid, CONFIG)
        super().read(files)
        if files.videos is not None:
            file, fields = files.videos
            files.side("image_size", fields.get("crop_size", fields.get("size")), file)
        patch = files.both.get("patch_size")
        if patch is not None and patch != files.taken["patch_size"][0]:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: patch_size {patch!r:.60}: its processor counts "
                f"tokens by it, and the tower has {files.taken['patch_size'][0]}"
            )

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1


VISIONS.add("video-llava", VideoLlava())
