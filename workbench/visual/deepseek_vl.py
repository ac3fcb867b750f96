"""DeepSeek-VL: any image is padded to one square of SigLIP L/16 at 384 pixels, 576 tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

DEFAULTS = {"image_size": 224, "patch_size": 16}
"""Of SigLIP's class."""


@dataclass(frozen=True)
class DeepseekVL(FrontEnd):
    """Every patch a token."""

    source: ClassVar[str] = (
        "https://huggingface.co/deepseek-community/deepseek-vl-1.3b-chat config.json;"
        " DeepseekVLProcessor in transformers for its 576 tokens"
    )

    kind: ClassVar[str] = "deepseek_vl"
    """The outer model type of a config.json that it serves."""
    models: ClassVar[tuple[str, ...]] = ("deepseek-vl-1.3b",)

    unsaid: ClassVar[Mapping[str, int]] = DEFAULTS
    """What transformers' class of the tower has where config.json leaves it out."""

    image_size: int = 384
    patch_size: int = 16

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == self.kind and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        for name, default in self.unsaid.items():
            stated = files.tower.get(name)
            files.side(name, default if stated is None else stated, CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
        files.whole_patches(self.image_size, self.patch_size)
        size, patch = (files.taken[name][0] for name in self.unsaid)
        promised = files.both.get("num_image_tokens")
        if promised is not None and promised != (size // patch) ** 2:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: num_image_tokens {promised!r:.60}, but the tower "
                f"of {CONFIG} makes {(size // patch) ** 2}"
            )

    def tokens_of_image(self, width: int, height: int) -> int:
        return (self.image_size // self.patch_size) ** 2


VISIONS.add("deepseek-vl", DeepseekVL())
