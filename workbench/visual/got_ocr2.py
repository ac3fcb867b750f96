"""GOT-OCR 2: an image is one square of 1,024 pixels, 256 tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles

UNSAID = {"image_size": 1024, "patch_size": 16}
"""What transformers' class of the tower has where config.json leaves it out."""


@dataclass(frozen=True)
class GotOcr2(FrontEnd):
    """Patches are shrunk 4 × 4 to a token. Its processor cuts no image, whatever a file says."""

    source: ClassVar[str] = (
        "the defaults of GotOcr2VisionConfig, GotOcr2ImageProcessor and GotOcr2Processor in"
        " transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("got-ocr-2",)

    image_size: int = 1024
    patch_size: int = 16

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "got_ocr2" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        for name, unsaid in UNSAID.items():
            stated = files.tower.get(name)
            files.side(name, unsaid if stated is None else stated, CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
        files.whole_patches(self.image_size, self.patch_size)

    @property
    def side(self) -> int:
        """Tokens a side: two convolutions of stride 2 over the patches."""
        return -(-(self.image_size // self.patch_size) // 4)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.side**2

    def markers_of_image(self, width: int, height: int) -> int:
        return 2


VISIONS.add("got-ocr-2", GotOcr2())
