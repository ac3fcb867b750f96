"""InternVL3's tower and projector: InternViT over tiles of 448 pixels, 2 × 2 patches a token."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.squares import Tiles, check_projector, depth_of
from workbench.visual.internvl import InternVL as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "internvl_vision"


class Patches(nn.Module):
    """The tower's hidden states of one layer, without the class token's row."""

    def __init__(self, tower: Any, layers: nn.ModuleList, depth: int, last: bool) -> None:
        super().__init__()
        self.tower, self.last = tower, last
        self.run = nn.ModuleList([*layers][:depth])
        for layer in [*layers][depth:]:
            layer.requires_grad_(False)
        if not last:
            tower.layernorm.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels)
        for layer in self.run:
            hidden = layer(hidden)
        return (self.tower.layernorm(hidden) if self.last else hidden)[:, 1:]


class Shuffled(nn.Module):
    """transformers' pixel shuffle and projector."""

    def __init__(self, projector: nn.Module, side: int, ratio: float) -> None:
        super().__init__()
        self.projector, self.side, self.ratio = projector, side, ratio

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, width] -> [N, tokens, D]."""
        from transformers import InternVLModel

        whole: Any = None  # The method needs nothing of the model.
        square = features.reshape(len(features), self.side, self.side, -1)
        shuffled = InternVLModel.pixel_shuffle(whole, square, scale_factor=self.ratio)
        return self.projector(shuffled.reshape(len(features), -1, shuffled.shape[-1]))


class InternVL(Tiles):
    """A tile, a thumbnail or a frame is an image of its own to the tower."""

    serves: ClassVar[Serves] = {"internvl": (KIND,)}
    kind = KIND
    """transformers' word for the tower."""
    front_end = "internvl"
    without_adapter = MERGED
    merges = True
    class_token = 1

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        check_projector(model.name, self.whole)
        self.name = model.name
        layer, layers = self.whole.vision_feature_layer, self.config.num_hidden_layers
        self.depth, self.last = depth_of(self.name, self.front_end, layer, layers), layer == -1
        strategy = self.whole.vision_feature_select_strategy
        if strategy != "default":
            raise RequestError(
                f"model {self.name!r}: vision_feature_select_strategy {strategy!r:.60}: default, "
                "for a class token has no place in the pixel shuffle"
            )
        self.shuffle = round(1 / self.whole.downsample_ratio)
        self.patches_a_token = self.shuffle**2
        self.image = Grid(1, self.side, self.side)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.shuffle, grid.columns // self.shuffle)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: self.vision_class()(self.config))
        context.weigh_component("tower", tower, "vision_tower.", self.kind)
        finish(tower, context)
        projector = self.projector(context)
        shuffled = Shuffled(projector, self.side, self.whole.downsample_ratio)
        return Patches(tower, self.layers(tower), self.depth, self.last), shuffled

    def vision_class(self) -> Any:
        """transformers' class of the tower."""
        from transformers import InternVLVisionModel

        return InternVLVisionModel

    def projector_class(self) -> Any:
        """transformers' class of the projector."""
        from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector

        return InternVLMultiModalProjector

    @staticmethod
    def layers(tower: Any) -> nn.ModuleList:
        """The layers of the built tower."""
        found: nn.ModuleList = tower.encoder.layer
        return found

    def projector(self, context: "Context") -> nn.Module:
        """transformers' projector, whose norm comes first."""
        config: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            downsample_ratio=self.whole.downsample_ratio,
            projector_hidden_act=self.whole.projector_hidden_act,
        )
        projection = context.create(lambda: self.projector_class()(config))
        context.weigh_component("adapter", projection, "multi_modal_projector.", self.kind)
        return projection

    @property
    def eye(self) -> FrontEnd:
        """The front end with its limits of tiles."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as module

        side = self.eye.image_size
        return module.GotOcr2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=not frames,
            min_patches=self.eye.min_tiles,
            max_patches=self.eye.max_tiles,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens, wide = sum(map(self.tokens, grids)), self.config.hidden_size * self.shuffle**2
        return 2 * tokens * self.hidden * (wide + self.hidden)


TOWERS.add("internvl", InternVL)
