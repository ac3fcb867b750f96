"""Qianfan-OCR: InternVL3's tiles of 448 pixels and a thumbnail, 256 tokens each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import CONFIG, ImageFiles
from workbench.visual.internvl import InternVL

UNSAID = {"image_size": 448, "patch_size": 14}
"""What transformers' class of the tower has where config.json leaves it out."""


@dataclass(frozen=True)
class QianfanOcr(InternVL):
    """Its processor takes no video: a frame is an image, in tiles as others."""

    source: ClassVar[str] = (
        "the defaults of QianfanOCRConfig, QianfanOCRProcessor and GotOcr2ImageProcessor in"
        " transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("qianfan-ocr",)

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "qianfan_ocr" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        for name, unsaid in UNSAID.items():
            if files.tower.get(name) is None:
                files.side(name, unsaid, CONFIG)
        super().read(files)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_of_image(width, height)


VISIONS.add("qianfan-ocr", QianfanOcr())
