"""PaliGemma: any image is stretched to one square, of which every patch is a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles, tower_kind
from workbench.vocabulary.errors import RequestError

DEFAULTS = {"image_size": 224, "patch_size": 16}
"""What transformers' class of the tower has where config.json leaves it out."""


@dataclass(frozen=True)
class PaliGemma(FrontEnd):
    """SigLIP so400m/14 at 224, 448 or 896 pixels: 256, 1,024 or 4,096 tokens."""

    source: ClassVar[str] = (
        "PaliGemma, arXiv 2407.07726; PaliGemma 2, arXiv 2412.03555;"
        " https://huggingface.co/google/paligemma2-3b-pt-224 config.json"
    )
    models: ClassVar[tuple[str, ...]] = ("paligemma",)
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{name}-{edge}": {"image_size": edge}
        for name in ("paligemma-3b", "paligemma2-3b", "paligemma2-10b", "paligemma2-28b")
        for edge in (448, 896)
    }

    image_size: int = 224
    patch_size: int = 14

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, "siglip_vision_model")
        return config.get("model_type") == "paligemma" and kind == "siglip_vision_model"

    def read(self, files: ImageFiles) -> None:
        for name, default in DEFAULTS.items():
            stated = files.tower.get(name)
            files.side(name, default if stated is None else stated, CONFIG)
        promised = [(BOTH, files.both)]
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            promised.append(files.images)
        files.whole_patches(self.image_size, self.patch_size)
        size, patch = (files.taken[name][0] for name in ("image_size", "patch_size"))
        expected = (size // patch) ** 2
        for file, fields in promised:
            length = fields.get("image_seq_length")
            if length is not None and length != expected:
                raise RequestError(
                    f"model {files.model!r}: {file}: image_seq_length {length!r:.60}, but the "
                    f"tower of {CONFIG} makes {expected}"
                )

    def tokens_of_image(self, width: int, height: int) -> int:
        return (self.image_size // self.patch_size) ** 2


VISIONS.add("paligemma", PaliGemma())
