"""Gemma 3: 256 tokens for the whole image, and 256 for each crop where crops are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

PROCESSOR = "transformers' Gemma3Processor, which overrides {}"


@dataclass(frozen=True)
class Gemma3(FrontEnd):
    """Each crop is resized to 896 × 896 and its 64 × 64 patches are averaged to 16 × 16.

    Pan and scan, the crops of a long image, is off unless a request says otherwise. What
    preprocessor_config.json says of it never counts: Gemma3Processor gives its image processor
    values of its own (its ``images_kwargs``).
    """

    source: ClassVar[str] = (
        "Gemma 3, arXiv 2503.19786; the limits of pan and scan, and that it is off, are those"
        " of Gemma3Processor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("gemma-3",)

    tokens_a_crop: int = 256
    pan_and_scan: bool = False
    min_crop: int = 256
    max_crops: int = 4
    min_ratio: float = 1.2

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "gemma3" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.take("tokens_a_crop", files.config.get("mm_tokens_per_image"), CONFIG)
        if files.images is None:
            return
        file, fields = files.images
        crops = fields.get("do_pan_and_scan")
        if crops is True:
            files.taken["pan_and_scan"] = False, PROCESSOR.format(file)
        elif crops not in (None, False):
            raise RequestError(
                f"model {files.model!r}: {file}: do_pan_and_scan {crops!r:.60}: true or false"
            )

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        return {limit: value} if limit == "pan_and_scan" else super().changes(limit, value)

    def num_crops(self, width: int, height: int) -> int:
        """Crops along the longer edge; 0 where the image is nearly square or too small."""
        long, short = max(width, height), min(width, height)
        if not self.pan_and_scan or long / short < self.min_ratio:
            return 0
        crops = min(floor(long / self.min_crop), floor(long / short + 0.5))
        count = min(self.max_crops, max(2, crops))
        return 0 if min(ceil(long / count), short) < self.min_crop else count

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_crop * (1 + self.num_crops(width, height))


VISIONS.add("gemma-3", Gemma3())
