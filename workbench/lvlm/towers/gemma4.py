"""Gemma 4's own tower: images of any size under two-dimensional RoPE, 3 × 3 patches a token.

Those of E2B and E4B clip what their linear layers take and give, by bounds of the checkpoint; an
audio tower beside them is left out, which a flag says.

transformers pads every image to the most patches that its budget allows, under a mask. Here images
of one size share a call, each with its own patches alone; a test holds the tower against
transformers' forward.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.audio import audio_flag
from workbench.visual.gemma_4 import Gemma4 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "gemma4_vision"
BOUNDS = {
    "input_min": float("-inf"),
    "input_max": float("inf"),
    "output_min": float("-inf"),
    "output_max": float("inf"),
}
"""Of what a linear layer of E2B and E4B takes and gives; as transformers makes them."""


class Alike(NamedTuple):
    """Images of one size that follow each other."""

    number: int
    patches: int
    tokens: int
    places: Tensor
    """Column and row of each patch, int64 [1, patches, 2]."""
    tables: tuple[Tensor, Tensor]
    """cos and sin [1, patches, head size]."""


class Blocks(nn.Module):
    """Patch embedding, layers and pooling, image by image, and the features' own scale."""

    def __init__(self, tower: Any, images: list[Alike]) -> None:
        super().__init__()
        self.patch_embedder, self.pooler = tower.patch_embedder, tower.pooler
        self.layers, self.images = tower.encoder.layers, images
        for name in ("std_bias", "std_scale"):
            buffer = getattr(tower, name, None)
            if buffer is not None:
                self.register_buffer(name, buffer)
        self.standardize = tower.config.standardize

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [tokens, width]."""
        parts = pixels.split([alike.number * alike.patches for alike in self.images])
        return torch.cat([*map(self._pooled, parts, self.images)])

    def _pooled(self, pixels: Tensor, alike: Alike) -> Tensor:
        rows = pixels.unflatten(0, (alike.number, alike.patches))
        places = alike.places.expand(alike.number, -1, -1)
        none = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
        hidden: Tensor = self.patch_embedder(rows, places, none)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=None,
                position_embeddings=alike.tables,
                position_ids=places,
            )
        pooled, _ = self.pooler(hidden, places, none, alike.tokens)
        if self.standardize:
            pooled = (pooled - self.std_bias.float()) * self.std_scale.float()
        return pooled.to(pixels.dtype).flatten(0, 1)


class Gemma4(Tower):
    """A token is the mean of a square of patches, made by the tower itself."""

    serves: ClassVar[Serves] = {"gemma4": (KIND,)}
    front_end = "gemma-4"
    without_adapter = ANOTHER

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        self.name, self.config, self.family = model.name, whole.vision_config, model.family
        self.text, self.hidden = model.config, model.config.hidden_size
        self.audio = whole.audio_config
        self.side = self.config.pooling_kernel_size
        self.patches_a_token = self.side**2
        rows, columns = eye.grid(1, 1, eye.max_tokens)
        self.image = Grid(1, rows * self.side, columns * self.side)
        self._check_places()

    def _check_places(self) -> None:
        most = self.config.position_embedding_size
        if self.eye.max_tokens * self.side > most:
            raise RequestError(
                f"model {self.name!r}: vision_config.position_embedding_size {most}: an image of "
                f"{self.eye.max_tokens} tokens may have {self.eye.max_tokens * self.side} patches "
                "in a row"
            )

    @property
    def flags(self) -> list[str]:
        if self.audio is None:
            return []
        tower, projector = (
            self.family.from_transformers(name)
            for name in ("Gemma4AudioModel", "Gemma4MultimodalEmbedder")
        )
        return [
            audio_flag(self.name, (tower, self.audio), (projector, self.audio, self.text)),
        ]

    @property
    def eye(self) -> FrontEnd:
        """The front end with its budgets."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.side, grid.columns // self.side)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(
            lambda: self.family.from_transformers("Gemma4VisionModel")(self.config)
        )
        width = self.config.hidden_size
        if self.config.standardize:
            tower.std_bias = torch.zeros(width, dtype=context.dtype, device=context.device)
            tower.std_scale = torch.ones(width, dtype=context.dtype, device=context.device)
        clipping = self.family.from_transformers("Gemma4ClippableLinear")
        for module in tower.modules():
            if isinstance(module, clipping) and self.config.use_clipped_linears:
                for name, bound in BOUNDS.items():
                    value = torch.tensor(bound, dtype=context.dtype, device=context.device)
                    setattr(module, name, value)
        rotary = type(tower.encoder.rotary_emb)(self.config).to(context.device)
        tower.encoder.rotary_emb = rotary
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        every = grids * context.cell.batch
        blocks = Blocks(tower, [*self._alike(every, rotary, context)])
        return blocks, self._adapter(context)

    def _adapter(self, context: "Context") -> nn.Module:
        """transformers' projector: a norm without weights, and one matrix."""
        embedder = self.family.from_transformers("Gemma4MultimodalEmbedder")
        embedding = context.create(lambda: embedder(self.config, self.text))
        context.weigh_component("adapter", embedding, "embed_vision.", KIND)
        return embedding

    def _alike(
        self, grids: tuple[Grid, ...], rotary: nn.Module, context: "Context"
    ) -> "Iterable[Alike]":
        like = torch.empty(0, dtype=context.dtype, device=context.device)
        for (rows, columns), same in groupby(grids, key=lambda grid: (grid.rows, grid.columns)):
            axes = (torch.arange(n, device=context.device) for n in (rows, columns))
            down, across = torch.meshgrid(*axes, indexing="ij")
            places = context.keep(torch.stack((across, down), -1).flatten(0, 1)[None])
            cos, sin = (context.keep(table) for table in rotary(like, places))
            number = sum(grid.steps for grid in same)
            tokens = rows * columns // self.patches_a_token
            yield Alike(number, rows * columns, tokens, places, (cos, sin))

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self._grid(width, height, self.eye.max_tokens),)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """An image for each frame, before which its time may stand as text."""
        return ((self._grid(width, height, self.eye.video_max_tokens),),) * num_frames

    def _grid(self, width: int, height: int, budget: int) -> Grid:
        rows, columns = self.eye.grid(width, height, budget)
        return Grid(1, rows * self.side, columns * self.side)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The patches of all images, [patches, pixels of a patch]."""
        from transformers.models.gemma4 import image_processing_pil_gemma4 as module

        processor = module.Gemma4ImageProcessorPil(
            max_soft_tokens=self.eye.video_max_tokens if num_frames else self.eye.max_tokens,
            patch_size=self.eye.patch_size,
            pooling_kernel_size=self.eye.pooling,
        )
        rows = []
        for image in images:
            batch = processor(image, return_tensors="pt")
            tokens = int(batch["num_soft_tokens_per_image"][0])
            rows.append(batch["pixel_values"][0, : tokens * self.patches_a_token])
        return torch.cat(rows)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * sum(grid.patches for grid in grids), 3 * self.config.patch_size**2

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        """The patch embedding, and the means, which are a product with a constant matrix."""
        width, patches = self.config.hidden_size, sum(grid.patches for grid in grids)
        means = sum(
            grid.steps * (grid.rows * grid.columns) ** 2 // self.patches_a_token
            for grid in grids
            if self.side > 1
        )
        return 2 * width * (patches * 3 * self.config.patch_size**2 + means)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        config = self.config
        wide = config.num_attention_heads * config.head_dim
        narrow = config.num_key_value_heads * config.head_dim
        row = 2 * config.hidden_size * (2 * wide + 2 * narrow + 3 * config.intermediate_size)
        pairs = sum(grid.steps * (grid.rows * grid.columns) ** 2 for grid in grids)
        layer = row * sum(grid.patches for grid in grids) + 4 * pairs * wide
        return self.patch_flops(grids) + config.num_hidden_layers * layer

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size


TOWERS.add("gemma4", Gemma4)
