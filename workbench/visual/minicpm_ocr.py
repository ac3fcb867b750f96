"""MiniCPM-OCR: images as MiniCPM-V 4.6's, in its mode of four times as many tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.minicpm_v import MiniCPMV
from workbench.vocabulary.errors import RequestError

UPSIZE = "small_image_upsize"
ALWAYS = "always"


@dataclass(frozen=True)
class MiniCPMOcr(MiniCPMV):
    """Small images are always enlarged; by what they show (``adaptive``) or never is refused."""

    source: ClassVar[str] = (
        "the defaults of MiniCPMOcrImageProcessor and MiniCPMOcrVideoProcessor in transformers,"
        " made for https://huggingface.co/openbmb/MiniCPM-OCR-1.0"
    )
    models: ClassVar[tuple[str, ...]] = ("minicpm-ocr",)

    downsample: str = "4x"

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "minicpm_ocr" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.images is not None:
            file, fields = files.images
            upsize = fields.get(UPSIZE, ALWAYS)
            if upsize != ALWAYS:
                raise RequestError(
                    f"model {files.model!r}: {file}: {UPSIZE} {upsize!r:.60}: only {ALWAYS} is "
                    "known; adaptive sizes follow from the letters that an image shows"
                )


VISIONS.add("minicpm-ocr", MiniCPMOcr())
