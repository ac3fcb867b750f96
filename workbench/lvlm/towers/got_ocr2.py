"""GOT-OCR 2's tower and projector: SAM over 1,024 pixels, shrunk by convolutions to 256 tokens.

Its attention is composed, whatever kernel is asked for: transformers' class has no other.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, finish
from workbench.lvlm.towers.sam import encoder_flops, patch_flops
from workbench.lvlm.towers.squares import Squares
from workbench.visual.got_ocr2 import GotOcr2 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "got_ocr2_vision"
"""Files of transformers 4, whose class had no type of its own, leave that of the section empty."""
MODULE = "transformers.models.got_ocr2.modeling_got_ocr2"


class Map(nn.Module):
    """The tower's features as a map."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, channels, rows, columns]."""
        features: Tensor = self.tower(pixels).last_hidden_state
        return features


class GotOcr2(Squares):
    """An image is one square."""

    serves: ClassVar[Serves] = {"got_ocr2": (KIND, "")}
    unlisted = (MODULE, "GotOcr2VisionEncoder")
    front_end = "got-ocr-2"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        width, heads = self.config.hidden_size, self.config.num_attention_heads
        if width % heads:
            raise RequestError(
                f"model {model.name!r}: vision_config.hidden_size {width}: no multiple of its "
                f"{heads} heads"
            )
        self.image = Grid(1, self.side, self.side)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def tokens(self, grid: Grid) -> int:
        return grid.steps * self.eye.side**2

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(self.eye.side, self.eye.side)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.got_ocr2 import modeling_got_ocr2 as module

        tower = context.create(lambda: module.GotOcr2VisionEncoder(self.config))
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        projection = context.create(lambda: module.GotOcr2MultiModalProjector(self.whole))
        context.weigh_component("adapter", projection, "multi_modal_projector.", KIND)
        return Map(tower), projection

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as module

        side = self.eye.image_size
        size = {"height": side, "width": side}
        return module.GotOcr2ImageProcessorPil(size=size, crop_to_patches=False)

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        return self._squares(grids) * patch_flops(self.config)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        return self._squares(grids) * encoder_flops(self.config)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        between = -(-self.side // 2)
        return 2 * self._squares(grids) * between**2 * 9 * 2 * self.config.output_channels**2

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        shrunk = 9 * 2 * self.config.output_channels * self.hidden
        rest = 2 * sum(map(self.tokens, grids)) * (shrunk + self.hidden**2)
        return self.entry_flops(grids) + rest


TOWERS.add("got_ocr2", GotOcr2)
