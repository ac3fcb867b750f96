"""LLaVA-OneVision: any resolution as LLaVA-NeXT, at most nine tiles of tokens; video pooled."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS
from workbench.visual.llava_next import LlavaNext
from workbench.vocabulary.errors import RequestError

EDGES = (384, 768, 1152, 1536, 1920, 2304)


@dataclass(frozen=True)
class LlavaOnevision(LlavaNext):
    """SigLIP at 384 pixels: 27 × 27 patches a tile; more than ``most_tiles`` are scaled down.

    Images that a sample shows together have their base view alone, and a newline.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/llava-hf/llava-onevision-qwen2-7b-ov-hf config.json"
        " (image_grid_pinpoints, vision_aspect_ratio); LlavaOnevisionProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("llava-onevision-",)

    image_size: int = 384
    patch_size: int = 14
    pinpoints: tuple[tuple[int, int], ...] = tuple((h, w) for h in EDGES for w in EDGES)
    most_tiles: int = 9

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[1])
        return config.get("model_type") == "llava_onevision" and kind == TOWERS[1]

    def read(self, files: ImageFiles) -> None:
        strategy = files.config.get("vision_feature_select_strategy", "full")
        if strategy != "full":
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: vision_feature_select_strategy "
                f"{strategy!r:.60}: full, for SigLIP has no class token to drop"
            )
        super().read(files)
        ratio = files.config.get("vision_aspect_ratio")
        if ratio is None:
            return
        number = re.fullmatch(r"anyres_max_([1-9][0-9]{0,3})", str(ratio))
        if number is None:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: vision_aspect_ratio {ratio!r:.60}: "
                "anyres_max_N, such as anyres_max_9"
            )
        files.take("most_tiles", int(number[1]), CONFIG)

    def kept(self, rows: int, columns: int) -> tuple[int, int]:
        ratio = sqrt(rows * columns / (self.most_tiles * self.side**2))
        return (rows, columns) if ratio <= 1.1 else (int(rows // ratio), int(columns // ratio))

    @property
    def view(self) -> int:
        """Tokens of an image that is shown beside others: its base view and a newline."""
        return self.side**2 + 1

    def tokens_of_images(self, sizes: Sequence[tuple[int, int]]) -> list[int]:
        return super().tokens_of_images(sizes) if len(sizes) == 1 else [self.view] * len(sizes)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return ceil(self.side / 2) ** 2

    def tokens_of_video(self, width: int, height: int, num_frames: int) -> int:
        """Every frame pooled to half its rows and columns, and one newline at the end."""
        return num_frames * self.tokens_of_step(width, height) + 1

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        return ["one more token, a newline, ends the video"] if num_frames else []


VISIONS.add("llava-onevision", LlavaOnevision())
