"""Gemma 3n: 256 tokens for any image, which is stretched to one square."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Gemma3n(FrontEnd):
    """Its tower makes as many features of a square as the processor writes tokens."""

    source: ClassVar[str] = (
        "the defaults of Gemma3nConfig and Gemma3nProcessor in transformers: "
        "vision_soft_tokens_per_image and image_seq_length; pixels as transformers' conversion "
        "script writes them (convert_gemma3n_weights.py)"
    )
    models: ClassVar[tuple[str, ...]] = ("gemma-3n",)

    tokens_an_image: int = 256
    image_size: int = 768
    """Pixels a side of the square that every image is stretched to."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        # Without a section of the tower transformers builds its default one.
        return config.get("model_type") == "gemma3n"

    def read(self, files: ImageFiles) -> None:
        stated = files.config.get("vision_soft_tokens_per_image")
        files.take("tokens_an_image", stated, CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
        written = files.both.get("image_seq_length")
        count = self.tokens_an_image if stated is None else stated
        if written is not None and written != count:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: image_seq_length {written!r:.60}, but the tower "
                f"of {CONFIG} makes {count}"
            )

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_an_image


VISIONS.add("gemma-3n", Gemma3n())
