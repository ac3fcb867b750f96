"""PerceptionLM's tower and projector: the Perception Encoder over tiles, 2 × 2 patches a token.

It is one of the package timm, within transformers' wrapper: a plain transformer under
two-dimensional RoPE. The projector runs on every patch, a class token's row is dropped before it,
and what comes out is averaged to tokens.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.resizing import resize, tensor_of, tiles_of
from workbench.lvlm.towers.wrapped import Work, Wrapped
from workbench.visual.perception_lm import PerceptionLM as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class Patches(nn.Module):
    """The tower's last hidden states, without the class token's row where it has one."""

    def __init__(self, tower: Any, dropped: int) -> None:
        super().__init__()
        self.tower, self.dropped = tower, dropped

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, edge, edge] -> [N, patches, width]."""
        rows = self.tower(pixel_values=pixels, do_pooling=False, return_dict=True)
        hidden: Tensor = rows.last_hidden_state
        return hidden[:, 1:] if self.dropped else hidden


class PerceptionLM(Wrapped):
    """A tile, the whole image or a frame is an image of its own to the tower."""

    kind = "timm_wrapper"
    serves: ClassVar[Serves] = {"perception_lm": (kind,)}
    front_end = "perception-lm"

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front
        assert isinstance(eye, FrontEnd)
        self.name, self.whole, self.config = model.name, whole, whole.vision_config
        self.hidden, self.edge, self.eye = model.config.hidden_size, eye.image_size, eye
        self.side, self.dropped = self.edge // eye.patch_size, int(whole.vision_use_cls_token)
        self.merges, self.patches_a_token = eye.pooling > 1, eye.pooling**2
        arguments = self.config.model_args or {}
        for name in ("embed_dim", "img_size"):
            if name not in arguments:
                raise RequestError(
                    f"model {self.name!r}: vision_config.model_args has no {name}, which its "
                    "projector and its tiles go by"
                )
        if self.side % eye.pooling:
            raise RequestError(
                f"model {self.name!r}: projector_pooling_ratio {eye.pooling}: {self.side} patches "
                "a side are no multiple of it"
            )
        self.wide = arguments["embed_dim"]
        self.image = Grid(1, self.side, self.side)

    @property
    def feature_width(self) -> int:
        return int(self.wide)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.eye.pooling, grid.columns // self.eye.pooling)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.perception_lm import modeling_perception_lm as module

        tower = self.wrapper(context)
        self._check(tower.timm_model)
        self.work = self._work(tower.timm_model)
        self.finish(tower, context)
        config: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            projector_pooling_ratio=self.eye.pooling,
        )
        projection = context.create(lambda: module.PerceptionLMMultiModalProjector(config))
        context.weigh_component("adapter", projection, "multi_modal_projector.", self.kind)
        return Patches(tower, self.dropped), projection

    def _check(self, encoder: Any) -> None:
        """Raise RequestError for a model of timm's whose rows are other ones."""
        from timm.models.eva import Eva

        if not isinstance(encoder, Eva) or not self.config.architecture.startswith("vit_pe_"):
            raise RequestError(
                f"model {self.name!r}: vision_config.architecture {self.config.architecture!r}: "
                "the tower of perception-lm is a Perception Encoder, one of timm's vit_pe_*"
            )
        size, patch = encoder.patch_embed.img_size, encoder.patch_embed.patch_size
        if size != (self.edge,) * 2 or patch != (self.eye.patch_size,) * 2:
            raise RequestError(
                f"model {self.name!r}: tiles of {self.edge} pixels with patches of "
                f"{self.eye.patch_size}: its tower takes {size[0]} with patches of {patch[0]}"
            )
        if encoder.num_prefix_tokens != self.dropped:
            raise RequestError(
                f"model {self.name!r}: vision_use_cls_token {bool(self.dropped)}: its tower has "
                f"{encoder.num_prefix_tokens} rows that are no patches"
            )

    def _work(self, encoder: Any) -> Work:
        """FLOPs of timm's encoder over one tile: patches, then linear layers and pairs of rows."""
        stem = 2 * self.side**2 * encoder.patch_embed.proj.weight.numel()
        rows, total = self.side**2 + encoder.num_prefix_tokens, stem
        for block in encoder.blocks:
            linear = (m for m in block.modules() if isinstance(m, nn.Linear))
            total += 2 * rows * sum(m.weight.numel() for m in linear)
            total += 4 * rows**2 * block.attn.num_heads * block.attn.head_dim
        return Work(stem, total)

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,) * self.eye.num_tiles(width, height)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((self.image,),) * num_frames

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The whole of each image, then its tiles; of a frame the whole alone."""
        squares = []
        for image in images:
            picture = tensor_of(image)
            squares.append(resize(picture, self.edge, self.edge, "bicubic")[None])
            if self.eye.tiled and not num_frames:
                columns, rows = self.eye.canvas(image.width, image.height)
                size = rows * self.edge, columns * self.edge
                squares.append(tiles_of(resize(picture, *size, "bicubic"), self.edge))
        return (torch.cat(squares).float() - 127.5) / 127.5

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(grid.patches for grid in grids) * self.hidden * self.wide

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        patches = sum(grid.patches for grid in grids)
        return 2 * patches * self.hidden * (self.wide + self.hidden)


TOWERS.add("perception_lm", PerceptionLM)
