"""Granite Vision 4.1: LLaVA-NeXT's tiles of 384 pixels, windows of each shrunk to 144 tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import BOTH, CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS
from workbench.visual.llava_next import GRANITE, LlavaNext
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Granite4Vision(LlavaNext):
    """SigLIP at 384 pixels: 4 × 4 tokens are left of 8 × 8 patches, 12 × 12 of a tile."""

    source: ClassVar[str] = (
        "https://huggingface.co/ibm-granite/granite-vision-4.1-4b config.json, as another"
        " repository's test quotes it; Granite4VisionProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("granite-vision-4",)
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    image_size: int = 384
    patch_size: int = 16
    pinpoints: tuple[tuple[int, int], ...] = GRANITE
    query: int = 4
    """Tokens a side that are left of a window (the numerator of downsample_rate)."""
    window: int = 8
    """Patches a side of a window (its denominator)."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[0])
        return config.get("model_type") == "granite4_vision" and kind == TOWERS[1]

    def read(self, files: ImageFiles) -> None:
        strategy = files.config.get("vision_feature_select_strategy", "default")
        if strategy != "full":
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: vision_feature_select_strategy "
                f"{strategy!r:.60}: full, for SigLIP has no class token to drop"
            )
        super().read(files)
        rate = files.config.get("downsample_rate")
        sides = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", str(rate))
        if sides is None or 2 * int(sides[1]) != int(sides[2]):
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: downsample_rate {rate!r:.60}: two sides, such "
                "as '4/8', one half of the other: of 2 × 2 patches a projector takes each one"
            )
        query, window = int(sides[1]), int(sides[2])
        files.taken["query"], files.taken["window"] = (query, CONFIG), (window, CONFIG)
        other = files.both.get("downsample_rate")
        if other not in (None, rate):
            raise RequestError(
                f"model {files.model!r}: {BOTH}: downsample_rate {other!r:.60}, but {CONFIG} says "
                f"{rate}: the model cannot take such images"
            )
        size, patch = (
            files.taken.get(name, (getattr(self, name),))[0]
            for name in ("image_size", "patch_size")
        )
        if size // patch % window:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: downsample_rate {rate}: {size // patch} "
                f"patches a side are no whole windows of {window}"
            )

    @property
    def side(self) -> int:
        """Tokens a side of one tile."""
        return self.image_size // self.patch_size * self.query // self.window


VISIONS.add("granite4-vision", Granite4Vision())
