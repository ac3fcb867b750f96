"""Pixtral's tower: images of any size under two-dimensional RoPE, and LLaVA's projector.

transformers lays all images of a batch into one sequence under a mask over all their pairs. Here
images of one size share a call, each seeing its own patches alone; a test holds the tower against
transformers' forward.
"""

from collections.abc import Iterable
from functools import cached_property
from itertools import groupby
from math import isqrt
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import check_projector, depth_of, first
from workbench.visual.pixtral import Pixtral as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "pixtral"
SIDE = 32
"""Tokens a side of the image that stands for |V|, unless the front end leaves fewer."""


class Alike(NamedTuple):
    """Images of one size that follow each other: how many, their patches and rotary tables."""

    number: int
    patches: int
    tables: tuple[Tensor, Tensor]


class Blocks(nn.Module):
    """Patch embedding and layers, image by image."""

    def __init__(self, tower: Any, depth: int, images: list[Alike]) -> None:
        super().__init__()
        self.patch_conv, self.ln_pre = tower.patch_conv, tower.ln_pre
        self.layers, self.depth, self.images = tower.transformer.layers, depth, images
        for layer in [*self.layers][depth:]:
            layer.requires_grad_(False)  # It feeds no token.

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, C, p, p] -> [patches, width]."""
        hidden = self.ln_pre(self.patch_conv(pixels).flatten(1))
        outputs = []
        parts = hidden.split([alike.number * alike.patches for alike in self.images])
        for part, alike in zip(parts, self.images, strict=True):
            rows = part.unflatten(0, (alike.number, alike.patches))
            for layer in [*self.layers][: self.depth]:
                rows = layer(rows, attention_mask=None, position_embeddings=alike.tables)
            outputs.append(rows.flatten(0, 1))
        return torch.cat(outputs)


class Pixtral(Tower):
    """Every patch a token."""

    serves: ClassVar[Serves] = {"llava": (KIND,)}
    front_end = "pixtral"
    without_adapter = ANOTHER
    prefix = "vision_tower."
    """What begins the names of its tensors in a checkpoint."""

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        whole = self.whole
        if hasattr(whole, "projector_hidden_act"):  # LightOnOCR's projector has one of its own.
            check_projector(model.name, whole)
        self.name, self.eps = model.name, getattr(model.config, "rms_norm_eps", 0)
        layer, layers = getattr(whole, "vision_feature_layer", -1), self.config.num_hidden_layers
        self.depth = depth_of(self.name, self.front_end, layer, layers)
        self.merge = self.merged()
        self.patches_a_token = self.merge**2

    @cached_property
    def image(self) -> Grid:  # type: ignore[override]
        side = min(SIDE, self.most) * self.merge
        return Grid(1, side, side)

    def merged(self) -> int:
        """Patches a side of a token; raises RequestError for a strategy that drops a patch."""
        strategy = self.whole.vision_feature_select_strategy
        if strategy != "full":
            raise RequestError(
                f"model {self.name!r}: vision_feature_select_strategy {strategy!r:.60}: full, for "
                "Pixtral has no class token to drop"
            )
        return 1

    @property
    def flags(self) -> list[str]:
        unused = self.config.num_hidden_layers - self.depth
        if not unused:
            return []
        return [
            f"tower: the last {unused} of its {self.config.num_hidden_layers} layers feed no "
            "token and are held, not run; transformers runs them"
        ]

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """Whole squares; up to one, an image as nearly square as can be."""
        if num_visual == 0 or num_visual >= self.tokens_each:
            return super().grids(num_visual)
        grid = self._single(num_visual)
        if grid is None:
            near = [n for n in range(self.tokens_each + 1) if n == 0 or self._single(n)]
            below = max(n for n in near if n < num_visual)
            above = min(n for n in near if n > num_visual)
            raise RequestError(
                f"num_visual {num_visual}: {self.front_end} takes images of edges up to "
                f"{self.most} tokens; the nearest are {below} and {above}"
            )
        return (grid,)

    @property
    def most(self) -> int:
        """Tokens along the longest edge that the front end leaves."""
        return max(1, self.eye.longest_edge // self.eye.token_size)

    def _single(self, tokens: int) -> Grid | None:
        rows = next(n for n in range(isqrt(tokens), 0, -1) if tokens % n == 0)
        columns = tokens // rows
        whole = Grid(1, rows * self.merge, columns * self.merge)
        return whole if columns <= self.most else None

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import PixtralVisionModel

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: PixtralVisionModel(self.config))
        context.weigh_component("tower", tower, self.prefix, KIND)
        finish(tower, context)
        rotary = type(tower.patch_positional_embedding)(self.config).to(context.device)
        every = grids * context.cell.batch
        blocks = Blocks(tower, self.depth, [*self._alike(every, rotary, context)])
        return blocks, self.adapter(context, every)

    def _alike(
        self, grids: tuple[Grid, ...], rotary: nn.Module, context: "Context"
    ) -> "Iterable[Alike]":
        like = torch.empty(0, dtype=context.dtype, device=context.device)
        for (rows, columns), same in groupby(grids, key=lambda grid: (grid.rows, grid.columns)):
            axes = (torch.arange(n, device=context.device) for n in (rows, columns))
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
            cos, sin = (context.keep(table) for table in rotary(like, places))
            yield Alike(sum(grid.steps for grid in same), rows * columns, (cos, sin))

    def adapter(self, context: "Context", grids: tuple[Grid, ...]) -> nn.Module:
        """transformers' projector of LLaVA."""
        from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

        projection = context.create(lambda: LlavaMultiModalProjector(self.wanted()))
        context.weigh_component("adapter", projection, "multi_modal_projector.", KIND)
        return projection

    def wanted(self) -> Any:
        """What a projector reads of a whole configuration."""
        return SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden, rms_norm_eps=self.eps),
            vision_feature_layer=-1,
            spatial_merge_size=self.merge,
            projector_hidden_act=self.whole.projector_hidden_act,
            multimodal_projector_bias=self.whole.multimodal_projector_bias,
        )

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        rows, columns = self.eye.grid(width, height)
        return (Grid(1, rows * self.merge, columns * self.merge),)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        from transformers.models.pixtral import image_processing_pil_pixtral as module

        patch, unit = self.eye.patch_size, self.eye.rounded_to()
        processor = module.PixtralImageProcessorPil(
            size={"longest_edge": self.eye.longest_edge},
            patch_size={"height": unit, "width": unit},
        )
        rows = []
        for image in images:
            (pixels,) = processor(image, return_tensors="pt")["pixel_values"]
            patches = pixels.unfold(1, patch, patch).unfold(2, patch, patch)
            rows.append(patches.permute(1, 2, 0, 3, 4).flatten(0, 1))
        return torch.cat(rows)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        patch = first(self.config.patch_size)
        number = batch * sum(grid.patches for grid in grids)
        return number, self.config.num_channels, patch, patch

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * first(self.config.patch_size) ** 2
        return 2 * sum(grid.patches for grid in grids) * pixels * self.config.hidden_size

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        patches = sum(grid.patches for grid in grids)
        pairs = sum(grid.steps * (grid.rows * grid.columns) ** 2 for grid in grids)
        layer = 2 * patches * (4 * width**2 + 3 * width * mlp) + 4 * pairs * width
        return self.patch_flops(grids) + self.depth * layer

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.config.hidden_size + self.hidden)


TOWERS.add("pixtral", Pixtral)
