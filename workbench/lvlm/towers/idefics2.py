"""Idefics2's tower and connector: SigLIP over images of any shape, 64 latents that read each.

The images of a sample are padded to the highest and widest of them, under a mask: padding runs
through the tower and the connector's first layers, as in transformers. What a resized image has
beyond whole patches feeds nothing and is cut off here.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import first
from workbench.visual.idefics2 import Idefics2 as FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "idefics2_vision"
MODULE = "transformers.models.idefics2.modeling_idefics2"


def key_mask(context: "Context", config: Any, seen: Tensor, queries: int) -> Tensor:
    """What scores get of keys [N, n] of which some are ``seen``: [N, 1, queries, n], as
    transformers makes it for the attention that ``config`` has.
    """
    whole = seen[:, None, None].expand(-1, -1, queries, -1).contiguous()
    if config._attn_implementation != "eager":
        return context.keep(whole)
    lowest = torch.finfo(context.dtype).min
    mask = torch.zeros(whole.shape, dtype=context.dtype, device=context.device)
    return context.keep(mask.masked_fill_(~whole, lowest))


class Padded(nn.Module):
    """The tower's last hidden states.

    ``seen`` are the patches [N, rows, columns] that are no padding, ``mask`` what scores get of
    it; None where nothing is padded.
    """

    def __init__(self, tower: Any, seen: Tensor, mask: Tensor | None) -> None:
        super().__init__()
        self.tower, self.seen, self.mask = tower, seen, mask

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels, patch_attention_mask=self.seen)
        hidden = self.tower.encoder(hidden, attention_mask=self.mask).last_hidden_state
        normed: Tensor = self.tower.post_layernorm(hidden)
        return normed


class Resampled(nn.Module):
    """transformers' connector under a mask of its own latents and of the patches."""

    def __init__(self, connector: Any, mask: Tensor | None) -> None:
        super().__init__()
        self.modality_projection = connector.modality_projection
        self.perceiver_resampler = connector.perceiver_resampler
        self.mask = mask

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, width] -> [N, latents, D]."""
        context = self.modality_projection(features)
        resampler: Any = self.perceiver_resampler
        latents = resampler.latents.expand(len(context), -1, -1)
        for layer in resampler.layers:
            latents = layer(latents, context, attention_mask=self.mask)
        normed: Tensor = resampler.norm(latents)
        return normed


class Idefics2(Tower):
    """A grid has the whole patches of an image, without what pads it to others."""

    serves: ClassVar[Serves] = {"idefics2": (KIND,)}
    unlisted = (MODULE, "Idefics2VisionTransformer")
    front_end = "idefics2"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.family = model.family
        self.perceiver, self.text = self.whole.perceiver_config, model.config
        self.patch = first(self.config.patch_size)
        side = first(self.config.image_size) // self.patch
        self.image = Grid(1, side, side)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its edges."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def tokens(self, grid: Grid) -> int:
        return int(self.perceiver.resampler_n_latents) * grid.steps

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid(self.tokens(grid))

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        views = self.eye.views(width, height)
        return tuple(Grid(1, high // self.patch, wide // self.patch) for wide, high in views)

    @staticmethod
    def canvas(grids: tuple[Grid, ...]) -> tuple[int, int]:
        """Rows and columns of patches that every image of a sample is padded to."""
        return max((g.rows for g in grids), default=0), max((g.columns for g in grids), default=0)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        rows, columns = self.canvas(grids)
        shape = self.config.num_channels, rows * self.patch, columns * self.patch
        return batch * len(grids), *shape

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.idefics2 import modeling_idefics2 as module

        chosen = implementation(context)
        self.config._attn_implementation = self.perceiver._attn_implementation = chosen
        tower = context.create(lambda: module.Idefics2VisionTransformer(self.config))
        context.weigh_component("tower", tower, "vision_model.", KIND)
        finish(tower, context)
        config: Any = SimpleNamespace(
            vision_config=self.config, text_config=self.text, perceiver_config=self.perceiver
        )
        connector = context.create(lambda: module.Idefics2Connector(config))
        connector.perceiver_resampler.config._attn_implementation = chosen
        context.weigh_component("adapter", connector, "connector.", KIND)
        seen = context.keep(self._seen(grids * context.cell.batch).to(context.device))
        mask = connector_mask = None
        if len({grid[1:3] for grid in grids}) > 1:
            flat = seen.flatten(1)
            latents = flat.new_ones(len(flat), self.perceiver.resampler_n_latents)
            mask = key_mask(context, self.config, flat, flat.shape[1])
            both = torch.cat((flat, latents), 1)
            connector_mask = key_mask(context, self.config, both, latents.shape[1])
        return Padded(tower, seen, mask), Resampled(connector, connector_mask)

    def _seen(self, grids: tuple[Grid, ...]) -> Tensor:
        """Patches of each image that are no padding, bool [N, rows, columns]."""
        seen = torch.zeros(len(grids), *self.canvas(grids), dtype=torch.bool)
        for each, grid in zip(seen, grids, strict=True):
            each[: grid.rows, : grid.columns] = True
        return seen

    def processor(self) -> Any:
        """transformers' image processor under the settings of the front end."""
        from transformers.models.idefics2 import image_processing_pil_idefics2 as module

        edges = {"shortest_edge": self.eye.shortest_edge, "longest_edge": self.eye.longest_edge}
        return module.Idefics2ImageProcessorPil(
            size=edges, do_image_splitting=self.eye.splits, do_pad=True
        )

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        prepared = self.processor()([[*images]], return_tensors="pt")["pixel_values"][0]
        rows, columns = (size // self.patch * self.patch for size in prepared.shape[-2:])
        whole: Tensor = prepared[..., :rows, :columns]
        return whole

    def _rows(self, grids: tuple[Grid, ...]) -> int:
        """Patches that run, padding among them."""
        rows, columns = self.canvas(grids)
        return len(grids) * rows * columns

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * self.patch**2
        return 2 * self._rows(grids) * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        rows, columns = self.canvas(grids)
        row = 2 * (4 * width**2 + 2 * width * mlp) + 4 * rows * columns * width
        layers = self.config.num_hidden_layers * self._rows(grids) * row
        return self.patch_flops(grids) + layers

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 4 * self._rows(grids) * self.config.hidden_size * self.text.intermediate_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        resampler, hidden = self.perceiver, self.text.hidden_size
        down = 2 * self._rows(grids) * self.text.intermediate_size * hidden
        latents = len(grids) * resampler.resampler_n_latents
        rows, columns = self.canvas(grids)
        seen = rows * columns + resampler.resampler_n_latents
        wide = resampler.resampler_n_heads * resampler.resampler_head_dim
        narrow = resampler.num_key_value_heads * resampler.resampler_head_dim
        keys = 4 * len(grids) * seen * hidden * narrow
        queries = latents * (4 * hidden * wide + 4 * seen * wide + 24 * hidden**2)
        return self.entry_flops(grids) + down + resampler.resampler_depth * (keys + queries)


TOWERS.add("idefics2", Idefics2)
