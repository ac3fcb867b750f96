"""LLaVA-NeXT: a base view, and the unpadded tiles of the best grid with a newline a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles, tower_kind
from workbench.visual.llava import TOWERS
from workbench.vocabulary.errors import RequestError

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""The published grids as (height, width)."""
GRANITE = (
    *((384, 384 * n) for n in range(1, 11)),
    *((768, 384 * n) for n in range(1, 6)),
    *((1152, 384 * n) for n in range(1, 4)),
    *((384 * n, 384 * m) for n in (4, 5) for m in (1, 2)),
    *((384 * n, 384) for n in range(6, 11)),
)
"""The same of Granite Vision: up to ten tiles of 384 pixels."""
MAX_PINPOINTS = 1000


@dataclass(frozen=True)
class LlavaNext(FrontEnd):
    """CLIP L/14 at 336 pixels without its class token: 24 × 24 patches a tile; or SigLIP."""

    source: ClassVar[str] = (
        "https://huggingface.co/llava-hf/llava-v1.6-mistral-7b-hf config.json"
        " (image_grid_pinpoints); LlavaNextProcessor in transformers for the unpadding;"
        " llama.cpp's README of Granite Vision for its grids"
    )

    models: ClassVar[tuple[str, ...]] = ("llava-next-", "granite-vision-3")
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"image_size": 384, "pinpoints": GRANITE}
        for name in ("granite-vision-3.2-2b", "granite-vision-3.3-2b")
    }

    image_size: int = 336
    patch_size: int = 14
    pinpoints: tuple[tuple[int, int], ...] = PINPOINTS

    def serves(self, config: Mapping[str, Any]) -> bool:
        kind = tower_kind(config, TOWERS[0])
        drops_first = config.get("vision_feature_select_strategy", "default") == "default"
        # SigLIP has no class token to drop.
        whole = kind == TOWERS[0] if drops_first else kind == TOWERS[1]
        return config.get("model_type") == "llava_next" and whole

    def read(self, files: ImageFiles) -> None:
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        self._grids(files, files.config.get("image_grid_pinpoints"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("crop_size", fields.get("size")), file)
            self._grids(files, fields.get("image_grid_pinpoints"), file)
        files.whole_patches(self.image_size, self.patch_size)
        side = files.taken.get("image_size", (self.image_size, ""))[0]
        grids, origin = files.taken.get("pinpoints", (self.pinpoints, CONFIG))
        for pair in grids:
            if min(pair) < side:
                raise RequestError(
                    f"model {files.model!r}: {origin}: image_grid_pinpoints {[*pair]}: smaller "
                    f"than a tile of {side} pixels"
                )
            if pair[0] % side or pair[1] % side:
                raise RequestError(
                    f"model {files.model!r}: {origin}: image_grid_pinpoints {[*pair]}: no whole "
                    f"number of tiles of {side} pixels"
                )

    def _grids(self, files: ImageFiles, value: object, file: str) -> None:
        if value is None:
            return
        pairs: list[Any] = value if isinstance(value, list) and value else [None]
        right = len(pairs) <= MAX_PINPOINTS and all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(
                isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 10**6 for n in pair
            )
            for pair in pairs
        )
        if not right:
            raise RequestError(
                f"model {files.model!r}: {file}: image_grid_pinpoints {value!r:.60}: a list of "
                "heights and widths in pixels"
            )
        grids = tuple((high, wide) for high, wide in pairs)
        stated, origin = files.taken.get("pinpoints", (grids, file))
        if set(stated) != set(grids):
            raise RequestError(
                f"model {files.model!r}: {file}: image_grid_pinpoints {value!r:.60}, but {origin} "
                "has others: the model cannot take such images"
            )
        files.taken["pinpoints"] = grids, file

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) that keeps most of the image's pixels and wastes least."""

        def worth(pinpoint: tuple[int, int]) -> tuple[int, int]:
            grid_height, grid_width = pinpoint
            scale = min(grid_width / width, grid_height / height)
            pixels = min(int(width * scale) * int(height * scale), width * height)
            return pixels, pixels - grid_height * grid_width

        return max(self.pinpoints, key=worth)

    @property
    def side(self) -> int:
        """Patches a side of one tile."""
        return self.image_size // self.patch_size

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles of an image, beside its base view."""
        grid_height, grid_width = self.grid(width, height)
        return grid_height // self.image_size, grid_width // self.image_size

    def patches(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches of all tiles that are left without the padding."""
        rows, columns = (tiles * self.side for tiles in self.tiles(width, height))
        # Padding is cut off on both sides alike, so an odd patch of it stays.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return rows, columns

    def kept(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tokens that the adapter makes of so many patches."""
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.kept(*self.patches(width, height))
        return self.side**2 + rows * (columns + 1)


VISIONS.add("llava-next", LlavaNext())
