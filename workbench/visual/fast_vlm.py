"""FastVLM: the middle of an image in one square of 1,024 pixels, a token for each 64 × 64."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, ImageFiles
from workbench.vocabulary.errors import RequestError

STRIDE = 64
"""Pixels a side of a token: the tower halves a side six times."""


@dataclass(frozen=True)
class FastVlm(FrontEnd):
    """The shorter edge is scaled to the square's, and what is left of the longer cut off."""

    source: ClassVar[str] = (
        "transformers' conversion script of KamilaMila/FastVLM-7B"
        " (convert_fastvlm_weights_to_hf.py)"
    )
    models: ClassVar[tuple[str, ...]] = ("fastvlm-",)

    image_size: int = 1024

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "fast_vlm" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        if files.images is not None:
            file, fields = files.images
            crop = fields.get("crop_size") if fields.get("do_center_crop", True) else None
            files.side("image_size", fields.get("size") if crop is None else crop, file)
            edge = files.taken.get("image_size", (self.image_size,))[0]
            if edge % STRIDE:
                raise RequestError(
                    f"model {files.model!r}: {file}: image_size {edge}: a multiple of {STRIDE}"
                )
        patch = files.both.get("patch_size")
        if patch not in (None, STRIDE):
            raise RequestError(
                f"model {files.model!r}: {BOTH}: patch_size {patch!r:.60}: a token of its tower "
                f"has {STRIDE} pixels a side"
            )

    @property
    def side(self) -> int:
        """Tokens a side."""
        return self.image_size // STRIDE

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.side**2


VISIONS.add("fast-vlm", FastVlm())
