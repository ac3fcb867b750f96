"""LightOnOCR: an image at its own size in whole patches, of which 2 × 2 make a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.visual.pixtral import Pixtral
from workbench.vocabulary.errors import RequestError

UNSAID = 16
"""The patch_size of PixtralImageProcessor in transformers, where its file gives it none."""


@dataclass(frozen=True)
class LightOnOcr(Pixtral):
    """Sides are rounded up to whole units; what is over whole tokens runs and feeds none."""

    source: ClassVar[str] = (
        "the defaults of LightOnOcrConfig and LightOnOcrProcessor in transformers, which name"
        " lightonai/LightOnOCR-1B-1025; that images are rounded to patches is from memory"
    )
    models: ClassVar[tuple[str, ...]] = ("lighton-ocr-",)
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    patch_size: int = 14
    merge: int = 2
    longest_edge: int = 1540
    unit: int = 14
    """Pixels of which a side of an image has whole ones: patch_size of its image processor."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        tower = config.get("vision_config")
        kind = tower.get("model_type") if isinstance(tower, Mapping) else None
        return config.get("model_type") == "lighton_ocr" and kind == "pixtral"

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("longest_edge", files.tower.get("image_size"), CONFIG)
        files.take("merge", files.config.get("spatial_merge_size"), CONFIG)
        patch = files.taken.get("patch_size", (self.patch_size,))[0]
        if files.images is not None:
            file, fields = files.images
            self.read_edge(files, file, fields.get("size"))
            if not files.side("unit", fields.get("patch_size"), file):
                files.taken["unit"] = UNSAID, f"transformers' default: {file} does not say"
        files.taken.setdefault("unit", (patch, CONFIG))
        unit, file = files.taken["unit"]
        if unit % patch:
            raise RequestError(
                f"model {files.model!r}: {file}: patch_size {unit}: no multiple of the tower's "
                f"{patch}"
            )
        files.take("patch_size", files.both.get("patch_size"), BOTH)
        files.take("merge", files.both.get("spatial_merge_size"), BOTH)
        edge, file = files.taken.get("longest_edge", (self.longest_edge, CONFIG))
        token = files.taken.get("merge", (self.merge,))[0] * patch
        if edge < token:
            raise RequestError(
                f"model {files.model!r}: {file}: longest edge {edge}: shorter than the {token} "
                "pixels of a token"
            )

    def rounded_to(self) -> int:
        return self.unit

    def patches(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        ratio = max(1.0, max(width, height) / self.longest_edge)
        sides = ((floor(n / ratio) - 1) // self.unit + 1 for n in (height, width))
        rows, columns = (side * self.unit // self.patch_size for side in sides)
        return rows, columns

    def grid(self, width: int, height: int) -> tuple[int, int]:
        rows, columns = (n // self.merge for n in self.patches(width, height))
        if min(rows, columns) < 1:
            raise RequestError(
                f"resolution {width}x{height}: scaled to {self.longest_edge} pixels, the shorter "
                f"edge has fewer than the {self.merge} patches of a token"
            )
        return rows, columns

    def markers_of_image(self, width: int, height: int) -> int:
        return 0


VISIONS.add("lighton-ocr", LightOnOcr())
