"""Granite for Docling's tower and connector: SigLIP over tiles, patches shuffled into tokens.

The connector adds fixed positions within a tile. Features of some of the tower's layers are
shuffled and merged to tokens of their own, which the decoder adds to its visual rows after its
first layers (deepstack). One of two routes through the connector is run: the coarse one, or the
fine one where the file of the image processor asks for it. The other, and a router that chooses
between them, are held, not run.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import Tiles
from workbench.visual.granite_docling import GraniteDocling as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "granite_docling_vision"
MODULE = "transformers.models.granite_docling.modeling_granite_docling"


class Features(nn.Module):
    """The tower's last hidden states, normed, and those of the layers that are merged."""

    def __init__(self, tower: Any, chosen: tuple[int, ...]) -> None:
        super().__init__()
        self.embeddings, self.encoder = tower.embeddings, tower.encoder
        self.post_layernorm, self.chosen = tower.post_layernorm, chosen

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """[tiles, 3, H, W] -> [tiles, patches, width] each."""
        hidden, taken = self.embeddings(pixels), []
        for index, layer in enumerate(self.encoder.layers):
            hidden = layer(hidden, attention_mask=None)
            if index in self.chosen:
                taken.append(hidden)
        return self.post_layernorm(hidden), *taken


class Route(nn.Module):
    """transformers' connector by one of its routes; the router beside it."""

    def __init__(self, connector: Any, router: nn.Module | None, fine: bool) -> None:
        super().__init__()
        self.connector, self.density_router, self.fine = connector, router, fine
        for unused in (connector.coarse if fine else connector.fine, router):
            if unused is not None:
                unused.requires_grad_(False)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """[tiles, patches, width] each -> [tokens, D] each: the embeddings, and what is added."""
        last, *taken = features
        tokens, added = self.connector(last, taken, fine=self.fine)
        return tokens, *added


class GraniteDocling(Tiles):
    """A tile and the whole page are images of their own to the tower."""

    serves: ClassVar[Serves] = {"granite_docling": (KIND,)}
    unlisted = (MODULE, "GraniteDoclingVisionModel")
    front_end = "granite-docling"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.depth = self.config.num_hidden_layers
        chosen, layers = self.config.deepstack_visual_indexes, model.config.num_hidden_layers
        right = (
            isinstance(chosen, (list, tuple))
            and all(isinstance(i, int) and 0 <= i < self.depth for i in chosen)
            and 0 < len(set(chosen)) == len(chosen) <= layers
        )
        if not right:
            raise RequestError(
                f"model {model.name!r}: deepstack_visual_indexes {chosen!r:.60}: different layers "
                f"of the tower, 0 to {self.depth - 1}, at most one for each of the {layers} layers"
            )
        self.chosen = tuple(sorted(chosen))
        self.stacked = tuple(range(len(chosen)))
        self.image = Grid(1, self.side, self.side)

    @property
    def shuffle(self) -> int:
        """Patches a side of a token."""
        return self.eye.shuffle // 2 if self.eye.fine else self.eye.shuffle

    def tokens(self, grid: Grid) -> int:
        return grid.patches // self.shuffle**2

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.shuffle, grid.columns // self.shuffle)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its limits of tiles and its route."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    @property
    def flags(self) -> list[str]:
        flags = []
        if self.config.use_fine_route:
            routes = ("fine", "coarse") if self.eye.fine else ("coarse", "fine")
            flags = ["adapter: its {} route is run, its {} one is held".format(*routes)]
        if self.whole.density_router_hidden_size is not None:
            flags += [
                "adapter: the router between its routes is held, not run; transformers runs it"
            ]
        return flags

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.granite_docling import modeling_granite_docling as module

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: module.GraniteDoclingVisionModel(self.config))
        # Buffers are not parameters, so ``create`` left them without values.
        places = torch.arange(self.image.patches, device=context.device)
        tower.embeddings.position_ids = places[None]
        for path in (tower.connector.coarse, tower.connector.fine):
            if path is not None:
                table = path.pos_embed.build(path.pos_embed.embed_dim, path.pos_embed.grid_size)
                path.pos_embed.pos_embed = table.to(context.device, context.dtype)
        context.weigh_component("tower", tower, "vision_model.", KIND)
        finish(tower, context)
        router = None
        if self.whole.density_router_hidden_size is not None:
            router = context.create(lambda: module.GraniteDoclingDensityRouter(self.whole))
            context.weigh_component("adapter", router, "density_router.", KIND)
        return Features(tower, self.chosen), Route(tower.connector, router, self.eye.fine)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return Tower.of_video(self, width, height, num_frames, fps)

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.granite_docling import (
            image_processing_pil_granite_docling as module,
        )

        eye = self.eye
        return module.GraniteDoclingImageProcessorPil(
            size={"height": eye.image_size, "width": eye.image_size},
            min_patches=eye.min_tiles,
            max_patches=eye.max_tiles,
            dense_max_patches=eye.dense_tiles,
            dense_max_scale=eye.dense_scale,
            dense_min_aspect=eye.dense_least,
            dense_max_aspect=eye.dense_most,
        )

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens, wide = sum(map(self.tokens, grids)), self.config.hidden_size * self.shuffle**2
        return (1 + len(self.chosen)) * 2 * tokens * self.hidden * (wide + self.hidden)


TOWERS.add("granite_docling", GraniteDocling)
