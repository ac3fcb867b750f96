"""LLaVA 1.5: any image becomes one square of CLIP L/14 at 336 pixels, 576 tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles, tower_kind
from workbench.vocabulary.errors import RequestError

TOWERS = ("clip_vision_model", "siglip_vision_model")
"""transformers' words for the towers that it is known with; the first has a class token."""


@dataclass(frozen=True)
class Llava(FrontEnd):
    """Each patch a token; the strategy ``default`` drops the tower's first row, CLIP's class."""

    source: ClassVar[str] = (
        "https://huggingface.co/llava-hf/llava-1.5-7b-hf config.json; LlavaProcessor in"
        " transformers for the rows that are left"
    )
    models: ClassVar[tuple[str, ...]] = ("llava-1.5-", "vip-llava-")

    image_size: int = 336
    patch_size: int = 14
    extra_rows: int = 0
    """Rows that are not patches: 1 for a class token that stays, -1 for a patch dropped."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[0])
        return config.get("model_type") in ("llava", "vipllava") and kind in TOWERS

    def read(self, files: ImageFiles) -> None:
        strategy = files.config.get("vision_feature_select_strategy", "default")
        if strategy not in ("default", "full"):
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: vision_feature_select_strategy "
                f"{strategy!r:.60}: default or full"
            )
        has_class = tower_kind(files.config, TOWERS[0]) == TOWERS[0]
        rows = has_class - (strategy == "default")
        files.taken["extra_rows"] = rows, CONFIG
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            crops = fields.get("do_center_crop") in (None, True)
            crop, size = fields.get("crop_size") if crops else None, fields.get("size")
            if not crops and isinstance(size, Mapping) and "shortest_edge" in size:
                raise RequestError(
                    f"model {files.model!r}: {file}: do_center_crop false: an image whose shorter "
                    "edge is resized is no square, which the tower takes"
                )
            files.side("image_size", size if crop is None else crop, file)
        files.whole_patches(self.image_size, self.patch_size)

    def tokens_of_image(self, width: int, height: int) -> int:
        return max(1, (self.image_size // self.patch_size) ** 2 + self.extra_rows)


VISIONS.add("llava", Llava())
