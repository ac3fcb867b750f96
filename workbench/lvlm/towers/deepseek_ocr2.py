"""DeepSeek-OCR 2's two towers, one after the other: SAM, and Qwen2's layers that read for queries.

SAM's features are shrunk by convolutions to a row for each 64 × 64 pixels. As many learned queries
follow them through layers of Qwen2, where features see each other and queries what is before them;
the queries' rows are the tokens. Tiles and the whole image go through both by themselves.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels.modelled import MASKED, register, tracing
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.sam import (
    BIASED,
    encoder_flops,
    model_attention,
    patch_flops,
    patches_a_side,
)
from workbench.visual.deepseek_ocr2 import QUERIES
from workbench.visual.deepseek_ocr2 import DeepseekOcr2 as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "deepseek_ocr2_vision"
SHRINKS = 4
"""SAM's patches a side of a feature."""


class Separator(nn.Module):
    """The embedding that ends an image, under the name that checkpoints give it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.view_separator = nn.Parameter(torch.empty(width))


class Reading(nn.Module):
    """Squares of both edges through SAM and then as many queries through Qwen2's layers."""

    def __init__(self, tower: Any, shapes: dict[int, tuple[Any, ...]], squares: list[int]) -> None:
        """``shapes`` has mask, cos and sin by edge; ``squares`` how many a sample has of each."""
        super().__init__()
        self.tower, self.shapes, self.squares = tower, shapes, squares

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B, pixels of a sample, whole images first] -> [squares, queries, width] by edge."""
        sizes = [3 * edge**2 for edge in self.shapes]
        parts = pixels.split([n * size for n, size in zip(self.squares, sizes, strict=True)], 1)
        return [
            self.read(part.reshape(-1, 3, edge, edge), edge)
            for part, edge, number in zip(parts, self.shapes, self.squares, strict=True)
            if number
        ]

    def read(self, pixels: Tensor, edge: int) -> Tensor:
        """[N, 3, edge, edge] -> [N, queries, width]."""
        mask, *tables = self.shapes[edge]
        features = self.tower.sam_encoder(pixels).last_hidden_state.flatten(2).transpose(1, 2)
        queries = getattr(self.tower, f"query_{edge}_resolution").weight
        rows = torch.cat([features, queries[None].expand(len(features), -1, -1)], 1)
        encoder = self.tower.vision_encoder
        for layer in encoder.layers:
            rows = layer(rows, attention_mask=mask, position_embeddings=tuple(tables))
        tokens: Tensor = encoder.norm(rows)[:, features.shape[1] :]
        return tokens


class Packer(nn.Module):
    """The projector, and the tokens of an image: its tiles, itself and the separator."""

    def __init__(self, projector: nn.Module, separator: Separator, tiles: list[int]) -> None:
        """``tiles`` of every image of a whole batch."""
        super().__init__()
        self.projector, self.separator, self.tiles = projector, separator, tiles

    def forward(self, features: list[Tensor]) -> Tensor:
        """[squares, queries, width] by edge -> [tokens, D]."""
        whole, *rest = (self.projector(x) for x in features)
        end = self.separator.view_separator[None]
        if not rest:
            return torch.cat([piece for image in whole for piece in (image, end)])
        pieces: list[Tensor] = []
        for image, tiles in zip(whole, rest[0].split(self.tiles), strict=True):
            pieces += [tiles.flatten(0, 1), image, end]
        return torch.cat(pieces)


class DeepseekOcr2(Tower):
    """An image is one square, and tiles where it is larger than one."""

    serves: ClassVar[Serves] = {"deepseek_ocr2": (KIND,)}
    unlisted = (
        "transformers.models.deepseek_ocr2.modeling_deepseek_ocr2",
        "DeepseekOcr2VisionModel",
    )
    front_end = "deepseek-ocr-2"
    without_adapter = (
        "keeps the width of SigLIP's features, but the tower of {tower.front_end} reads "
        "an image into queries of its own"
    )
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.family = model.family
        self.sam, self.encoder = self.config.sam_config, self.config.encoder_config
        reason = self._faults()
        if reason is not None:
            raise RequestError(f"model {model.name!r}: vision_config.{reason}")
        side = self.eye.image_size // (self.sam.patch_size * SHRINKS)
        self.image = Grid(1, side, side)

    def _faults(self) -> str | None:
        """What of the towers' sizes makes no sense."""
        sam, encoder = self.sam, self.encoder
        if (sam.image_size, sam.patch_size) != (1024, 16):
            return (
                f"sam_config image_size {sam.image_size}, patch_size {sam.patch_size}: 1024 and "
                "16, for which there are queries"
            )
        channels = sam.downsample_channels
        if len(channels) != 2 or channels[1] != encoder.hidden_size:
            return (
                f"sam_config.downsample_channels {channels!r:.60}: two, the second the "
                f"encoder_config's hidden_size {encoder.hidden_size}"
            )
        if sam.hidden_size % sam.num_attention_heads:
            return f"sam_config.hidden_size {sam.hidden_size}: no multiple of its heads"
        if encoder.hidden_size % encoder.num_attention_heads:
            return f"encoder_config.hidden_size {encoder.hidden_size}: no multiple of its heads"
        if encoder.num_attention_heads % encoder.num_key_value_heads:
            return (
                f"encoder_config.num_attention_heads {encoder.num_attention_heads}: no multiple "
                f"of num_key_value_heads {encoder.num_key_value_heads}"
            )
        return None

    @property
    def flags(self) -> list[str]:
        return [BIASED]

    @property
    def eye(self) -> FrontEnd:
        """The front end with its tiles."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    @property
    def head_size(self) -> int:
        return int(self.encoder.hidden_size // self.encoder.num_attention_heads)

    @staticmethod
    def tiles(grid: Grid) -> int:
        """Tiles of an image beside itself."""
        return 0 if grid.tiles is None else grid.tiles[0] * grid.tiles[1]

    def squares(self, grids: Iterable[Grid]) -> dict[int, int]:
        """By their edge, how many squares the towers see of these images."""
        images = [grid for grid in grids for _ in range(grid.steps)]
        tiles = sum(map(self.tiles, images))
        return {self.eye.image_size: len(images), self.eye.tile_size: tiles}

    def tokens(self, grid: Grid) -> int:
        squares = self.squares([grid])
        return sum(n * QUERIES[edge] for edge, n in squares.items()) + grid.steps

    def token_grid(self, grid: Grid) -> TokenGrid:
        # With its tiles and the separator an image has no rows.
        return TokenGrid(self.tokens(grid))

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image._replace(tiles=self.eye.tiles(width, height)),)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        for config in (self.config, self.sam, self.encoder):
            config._attn_implementation = implementation(context)
        kind = self.family.from_transformers("DeepseekOcr2VisionModel")
        tower = context.create(lambda: kind(self.config))
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        model_attention(tower.sam_encoder, context)
        squares = self.squares(grids)
        for edge, number in squares.items():
            if not number:  # Its queries feed no token.
                getattr(tower, f"query_{edge}_resolution").requires_grad_(False)
        shapes = {
            edge: tuple(map(context.keep, self._shapes(tower, edge, context))) for edge in squares
        }
        if tracing(context.device) and implementation(context) == "sdpa":
            register()
            tower.vision_encoder.config._attn_implementation = MASKED
        reading = Reading(tower, shapes, [*squares.values()])
        return reading, self._packer(context, grids)

    def _packer(self, context: "Context", grids: tuple[Grid, ...]) -> nn.Module:
        width = self.encoder.hidden_size
        projector = context.create(lambda: nn.Linear(width, self.hidden))
        context.weigh_component("adapter", projector, "multi_modal_projector.", KIND)
        separator = context.create(lambda: Separator(self.hidden))
        context.weigh_component("separator", separator, "", KIND)
        images = [grid for grid in grids * context.cell.batch for _ in range(grid.steps)]
        return Packer(projector, separator, [*map(self.tiles, images)])

    def _shapes(self, tower: Any, edge: int, context: "Context") -> tuple[Tensor, ...]:
        """What the layers of queries take for a square: its mask, cos and sin."""
        features = QUERIES[edge]
        rows = torch.arange(2 * features, device=context.device)
        sees = (rows[None] <= rows[:, None]) | (rows < features).logical_and(
            (rows < features)[:, None]
        )
        mask = sees[None, None]
        if implementation(context) == "eager":
            least = torch.finfo(context.dtype).min
            mask = torch.zeros(mask.shape, dtype=context.dtype, device=context.device).masked_fill(
                ~mask, least
            )
        rotary = type(tower.vision_encoder.rotary_emb)(self.encoder).to(context.device)
        like = torch.empty(0, dtype=context.dtype, device=context.device)
        return mask, *rotary(like, rows[None])

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The squares of all images, then their tiles, [1, pixels]."""
        from transformers.models.deepseek_ocr2 import image_processing_pil_deepseek_ocr2 as module

        processor = module.DeepseekOcr2ImageProcessorPil(
            min_patches=self.eye.min_tiles, max_patches=self.eye.max_tiles
        )
        batches = [processor(image, return_tensors="pt") for image in images]
        names = "pixel_values", "pixel_values_local"
        return torch.cat([x[name].flatten() for name in names for x in batches if name in x])[None]

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch, sum(n * 3 * edge**2 for edge, n in self.squares(grids).items())

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        squares = self.squares(grids)
        return sum(n * patch_flops(self.sam, edge) for edge, n in squares.items())

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        return sum(n * self._square_flops(edge) for edge, n in self.squares(grids).items())

    def _square_flops(self, edge: int) -> int:
        """Matmul FLOPs of both towers over one square."""
        out, encoder = self.sam.output_channels, self.encoder
        middle, last = self.sam.downsample_channels
        features, width = (patches_a_side(self.sam, edge) // SHRINKS) ** 2, encoder.hidden_size
        # Two convolutions of 3 × 3 with strides of 2.
        shrunk = 2 * 9 * (4 * features * out * middle + features * middle * last)
        narrow = encoder.num_key_value_heads * self.head_size
        row = 2 * width * (2 * width + 2 * narrow + 3 * encoder.intermediate_size)
        rows = features + QUERIES[edge]
        layers = encoder.num_hidden_layers * (rows * row + 4 * rows**2 * width)
        return encoder_flops(self.sam, edge) + shrunk + layers

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        rows = sum(n * QUERIES[edge] for edge, n in self.squares(grids).items())
        return 2 * rows * self.hidden * self.encoder.hidden_size

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.adapter_flops(grids)


TOWERS.add("deepseek_ocr2", DeepseekOcr2)
