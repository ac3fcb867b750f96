"""HunyuanOCR's tower and merger: learned positions stretched to the image, 2 × 2 patches a token.

The merger convolves patches, ends every row with a learned newline and puts a learned row before
and behind each image; one more is held and feeds nothing. transformers attends image by image;
here images that are alike share a call.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.layout import Layout
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.frames import Frames
from workbench.lvlm.towers.qwen_vl import QwenTower

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context

SECTION = 3
"""Axes of an image's tokens: column, row, and the image's number."""


class AlikeAttention(nn.Module):
    """transformers' own vision attention, images that are alike in one call."""

    def __init__(self, inner: Any, frames: list[Frames], module: Any) -> None:
        """``module`` is transformers' of the family, whose functions are called."""
        super().__init__()
        self.inner, self.frames, self.module = inner, frames, module

    def forward(self, hidden_states: Tensor, **_: object) -> tuple[Tensor, None]:
        """[1, patches, width] -> the same."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        inner: Any = self.inner
        name, eager = inner.config._attn_implementation, self.module.eager_attention_forward
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
        projections = (inner.q_proj, inner.k_proj, inner.v_proj)
        qkv = [p(hidden_states)[0].unflatten(1, (inner.num_heads, -1)) for p in projections]
        out, start = [], 0
        for run in self.frames:
            rows = slice(start, start + run.number * run.patches)
            of_run = (x[rows].unflatten(0, (run.number, run.patches)) for x in qkv)
            attended, _weights = attend(
                inner,
                *(x.transpose(1, 2) for x in of_run),
                attention_mask=None,
                scaling=inner.scaling,
                dropout=0.0,
                is_causal=False,
            )
            out.append(attended.reshape(rows.stop - start, -1))
            start = rows.stop
        return inner.o_proj(torch.cat(out)[None]), None


class Patches(nn.Module):
    """Patch embedding and layers over the patches of all images."""

    def __init__(self, visual: Any, sizes: list[list[int]]) -> None:
        super().__init__()
        self.embeddings, self.layers, self.sizes = visual.embeddings, visual.layers, sizes

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden = self.embeddings(pixels, self.sizes)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden[0]


class Merged(nn.Module):
    """transformers' merger, image by image."""

    def __init__(self, merger: Any, sizes: list[list[int]]) -> None:
        super().__init__()
        self.merger, self.sizes = merger, sizes
        merger.image_sep.requires_grad_(False)  # It feeds no token.

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        images = features.split([rows * columns for _, rows, columns in self.sizes])
        pairs = zip(images, self.sizes, strict=True)
        return torch.cat([self.merger(x[None], size=(r, c))[0] for x, (_, r, c) in pairs])


class HunyuanVL(QwenTower):
    """Images of any size in whole tokens of 32 × 32 pixels, each with a row before and behind."""

    serves: ClassVar[Serves] = {"hunyuan_vl": ("hunyuan_vl_vision", "hunyuan_vl")}
    unlisted = (
        "transformers.models.hunyuan_vl.modeling_hunyuan_vl",
        "HunYuanVLVisionTransformer",
    )
    front_end = "hunyuan-vl"
    config_class = "HunYuanVLVisionConfig"
    model_class = "HunYuanVLVisionTransformer"
    out_field = "text_hidden_size"

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        return Tower.grids(self, num_visual)

    def tokens(self, grid: Grid) -> int:
        return grid.rows // self.merge * (grid.columns // self.merge + 1) + 2

    def token_grid(self, grid: Grid) -> TokenGrid:
        # With its newlines and what is around it an image has no rows.
        return TokenGrid(self.tokens(grid))

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        kind = self.family.from_transformers(self.model_class)
        visual = context.create(lambda: kind(self.config))
        context.weigh_component("tower and adapter", visual, "vision_tower.", self.stated_kind)
        finish(visual, context)
        return self.modules(visual, context, grids * context.cell.batch)

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        frames, module = self.frames(grids), self.family.module()
        for layer in visual.layers:
            layer.self_attn = AlikeAttention(layer.self_attn, frames, module)
        sizes = [[1, grid.rows, grid.columns] for grid in grids]
        return Patches(visual, sizes), Merged(visual.patch_merger, sizes)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return Tower.of_video(self, width, height, num_frames, fps)

    def processor_class(self) -> Any:
        from transformers.models.hunyuan_vl import image_processing_pil_hunyuan_vl as module

        return module.HunYuanVLImageProcessorPil

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        return torch.cat([self.still(image, 0) for image in images])

    @property
    def _pixels_a_patch(self) -> int:
        return int(self.config.num_channels * self.config.patch_size**2)

    def mlp_weights(self) -> int:
        return 2 * self.width * self.config.intermediate_size

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        depth, patches = self.config.num_hidden_layers, sum(grid.patches for grid in grids)
        linear = 2 * (self.attention_weights() + self.mlp_weights())
        pairs = sum(run.number * run.patches**2 for run in self.frames(grids))
        return self.patch_flops(grids) + depth * (patches * linear + 4 * self.width * pairs)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        merged = sum(grid.patches for grid in grids) // self.patches_a_token
        ended = sum(self.tokens(grid) - 2 for grid in grids)
        convolved = 2 * self.width * (self.width * self.patches_a_token + 4 * self.width)
        return 2 * (merged * convolved + ended * 4 * self.width * self.hidden)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor:
        """Indices, and for an image's tokens column, row and the image's number: [axes, S].

        As transformers' ``get_rope_index``; what stands around an image keeps its index.
        """
        parameters: Any = self.model.config.rope_parameters
        places = torch.arange(layout.length).repeat(len(parameters["mrope_section"]), 1)
        visual, at = layout.positions(visual=True), 0
        for number, grid in enumerate(grids):
            rows, columns = (torch.arange(n // self.merge) for n in (grid.rows, grid.columns))
            ended = torch.arange(len(columns) + 1)
            down, across = torch.meshgrid(rows, ended, indexing="ij")
            inside = visual[at + 1 : at + 1 + down.numel()]
            places[-SECTION, inside], places[-2, inside] = across.flatten(), down.flatten()
            places[-1, inside] = number
            at += self.tokens(grid)
        return places


TOWERS.add("hunyuan_vl", HunyuanVL)
