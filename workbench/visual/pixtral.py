"""Pixtral and Mistral Small 3: an image at its own size, in whole patches or merged patches."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Pixtral(FrontEnd):
    """Images above ``longest_edge`` are scaled down; sides are rounded up to whole tokens.

    After each row of tokens stands the text token [IMG_BREAK], after the last [IMG_END].
    """

    source: ClassVar[str] = (
        "https://huggingface.co/mistral-community/pixtral-12b config.json and"
        " preprocessor_config.json; those of mistralai/Mistral-Small-3.1-24B-Instruct-2503 for"
        " Mistral Small; PixtralProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("pixtral-", "mistral-small-", "ministral-3-")
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mistral-small-": {"patch_size": 14, "merge": 2, "longest_edge": 1540},
        "ministral-3-": {"patch_size": 14, "merge": 2, "longest_edge": 1540},
    }

    patch_size: int = 16
    merge: int = 1
    """Patches a side of a token."""
    longest_edge: int = 1024

    def serves(self, config: Mapping[str, Any]) -> bool:
        outer = config.get("model_type")
        unsaid = "pixtral" if outer == "mistral3" else TOWERS[0]
        return outer in ("llava", "mistral3") and tower_kind(config, unsaid) == "pixtral"

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("longest_edge", files.tower.get("image_size"), CONFIG)
        merge = files.config.get("spatial_merge_size", 2)
        files.take("merge", merge if files.config.get("model_type") == "mistral3" else 1, CONFIG)
        if files.images is None:
            return
        file, fields = files.images
        files.side("patch_size", fields.get("patch_size"), file)
        self.read_edge(files, file, fields.get("size"))
        whole = files.both
        files.take("patch_size", whole.get("patch_size"), BOTH)
        files.take("merge", whole.get("spatial_merge_size"), BOTH)

    @staticmethod
    def read_edge(files: ImageFiles, file: str, size: object) -> None:
        """Take the longest edge of an image processor's size, where it has one."""
        if size is None:
            return
        edge = size.get("longest_edge") if isinstance(size, Mapping) else None
        if edge is None:
            raise RequestError(
                f"model {files.model!r}: {file}: size {size!r:.60}: "
                '{"longest_edge": pixels} is known'
            )
        # The tower has no size of its own: what is larger rotates further.
        files.taken.pop("longest_edge", None)
        files.take("longest_edge", edge, file)

    def rounded_to(self) -> int:
        """Pixels of which a side of a resized image has whole ones."""
        return self.token_size

    @property
    def token_size(self) -> int:
        """Pixels a side of a token."""
        return self.patch_size * self.merge

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        ratio = max(1.0, max(width, height) / self.longest_edge)
        rows, columns = ((floor(n / ratio) - 1) // self.token_size + 1 for n in (height, width))
        if min(rows, columns) < 1:
            raise RequestError(
                f"resolution {width}x{height}: scaled to {self.longest_edge} pixels, the shorter "
                "edge is none"
            )
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.grid(width, height)
        return rows * columns

    def markers_of_image(self, width: int, height: int) -> int:
        return self.grid(width, height)[0]


VISIONS.add("pixtral", Pixtral())
