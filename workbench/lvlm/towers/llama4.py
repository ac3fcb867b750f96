"""Llama 4's own tower: tiles of 336 pixels under two-dimensional RoPE, shuffled to 144 tokens.

transformers' module as it is, the shuffle and its MLP within; the adapter is one matrix. Pixels of
files are those of its processor, which needs torchvision, without it. A frame of a video is an
image of its own, for transformers has no video processor for it.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.resizing import pad, resize, tensor_of, tiles_of
from workbench.lvlm.towers.squares import Tiles, first
from workbench.visual.llama4 import Llama4 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "llama4_vision_model"


class Whole(nn.Module):
    """transformers' tower, its features alone."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, edge, edge] -> [N, tokens, width of the features]."""
        features: Tensor = self.tower(pixels, return_dict=True).last_hidden_state
        return features


class Projector(nn.Module):
    """transformers' projector."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        """[N, tokens, W] -> [N, tokens, D]."""
        projected: Tensor = self.inner(features)
        return projected


class Llama4(Tiles):
    """A tile is 144 tokens, and so is the whole image beside several."""

    serves: ClassVar[Serves] = {"llama4": (KIND,)}
    unlisted = ("transformers.models.llama4.modeling_llama4", "Llama4VisionModel")
    front_end = "llama4"
    without_adapter = ANOTHER
    class_token = 1

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        self.config, self.family, self.eye = whole.vision_config, model.family, eye
        self.hidden, self.depth = model.config.hidden_size, self.config.num_hidden_layers
        self.patches_a_token = eye.shuffle**2
        config = self.config
        if config.intermediate_size != config.hidden_size * self.patches_a_token:
            raise RequestError(
                f"model {model.name!r}: vision_config.intermediate_size "
                f"{config.intermediate_size}: {self.patches_a_token} features of "
                f"{config.hidden_size} are shuffled to a token"
            )
        if (
            not config.projector_input_dim
            == config.projector_output_dim
            == (config.vision_output_dim)
        ):
            raise RequestError(
                f"model {model.name!r}: projector_input_dim, projector_output_dim and "
                f"vision_output_dim ({config.projector_input_dim}, {config.projector_output_dim}, "
                f"{config.vision_output_dim}): they follow each other, and must be the same"
            )
        self.image = Grid(1, self.side, self.side)

    def token_grid(self, grid: Grid) -> TokenGrid:
        side = self.side // self.eye.shuffle
        return TokenGrid.of(side, side)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(
            lambda: self.family.from_transformers("Llama4VisionModel")(self.config)
        )
        tower.rotary_embedding = type(tower.rotary_embedding)(self.config).to(context.device)
        context.weigh_component("tower", tower, "vision_model.", KIND)
        finish(tower, context)
        config = SimpleNamespace(
            vision_config=self.config, text_config=SimpleNamespace(hidden_size=self.hidden)
        )
        projector = self.family.from_transformers("Llama4MultiModalProjector")
        projection = context.create(lambda: projector(config))
        context.weigh_component("adapter", projection, "multi_modal_projector.", KIND)
        return Whole(tower), Projector(projection)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return (self.of_image(width, height),) * num_frames

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        return torch.cat([self._tiles(tensor_of(image)) for image in images]).float()

    def _tiles(self, picture: Tensor) -> Tensor:
        """uint8 [3, H, W] -> its tiles, and the whole beside several, about 0 in bfloat16, as its
        processor rounds them.
        """
        height, width = picture.shape[1:]
        edge, (rows, columns) = self.eye.image_size, self.eye.canvas(width, height)
        across, down = self.eye.scaled(width, height)
        tiles = tiles_of(
            pad(resize(picture, down, across), rows * edge, columns * edge, value=0), edge
        )
        if len(tiles) > 1:
            tiles = torch.cat((tiles, resize(picture, edge, edge)[None]))
        return (tiles.to(torch.bfloat16) * (1 / 255) - 0.5) / 0.5

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        config, tokens = self.config, sum(map(self.tokens, grids))
        wide = config.projector_output_dim
        shuffled = 2 * tokens * (config.intermediate_size * config.projector_input_dim + wide**2)
        return super().tower_flops(grids) + shuffled

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * first(self.config.patch_size) ** 2
        return 2 * self._squares(grids) * self.side**2 * self.config.hidden_size * pixels

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.adapter_flops(grids)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * self.config.vision_output_dim


TOWERS.add("llama4", Llama4)
