"""DeepSeek-VL 7B: DeepSeek-VL's padded square, which a second tower sees at 1,024 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.deepseek_vl import DeepseekVL
from workbench.visual.files import CONFIG, ImageFiles

SAM = 1024
"""The image_size that transformers' class of that tower has where config.json leaves it out."""


@dataclass(frozen=True)
class DeepseekVLHybrid(DeepseekVL):
    """Every patch of the smaller square a token."""

    source: ClassVar[str] = (
        "transformers' conversion script of deepseek-community/deepseek-vl-7b-chat;"
        " DeepseekVLHybridProcessor in transformers for its 576 tokens"
    )
    kind: ClassVar[str] = "deepseek_vl_hybrid"
    models: ClassVar[tuple[str, ...]] = ("deepseek-vl-7b",)

    high_res_size: int = SAM

    def read(self, files: ImageFiles) -> None:
        section: Any = files.config.get("high_res_vision_config")
        stated = section.get("image_size") if isinstance(section, Mapping) else None
        files.side("high_res_size", SAM if stated is None else stated, CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("high_res_size", fields.get("high_res_size"), file)
        super().read(files)


VISIONS.add("deepseek-vl-hybrid", DeepseekVLHybrid())
