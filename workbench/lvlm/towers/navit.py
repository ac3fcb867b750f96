"""SigLIP for images of any size, packed one behind the other, under RoPE of rows and columns.

What the towers of VideoLLaMA 3 and PaddleOCR-VL share. transformers runs the attention of every
image as a call of its own; here those of one size that follow each other share a call, and tests
hold the towers against its forward.
"""

from abc import abstractmethod
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import ANOTHER, Grid, finish, implementation
from workbench.lvlm.towers.frames import GroupedAttention
from workbench.lvlm.towers.qwen_vl import QwenTower
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context


class PackedAttention(GroupedAttention):
    """transformers' own attention of SigLIP's form, images of one size in one call."""

    def forward(
        self, hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Any:
        """[patches, width] -> [patches, width], and no scores."""
        return super().forward(hidden, position_embeddings=position_embeddings), None

    @property
    def w_o(self) -> Any:
        return self.inner.out_proj

    def _projected(self, hidden: Tensor) -> tuple[Tensor, ...]:
        inner = self.inner
        projections = inner.q_proj, inner.k_proj, inner.v_proj
        return tuple(p(hidden).unflatten(1, (inner.num_heads, -1)) for p in projections)


class Visual(NamedTuple):
    """transformers' tower and adapter."""

    tower: Any
    projector: Any


class NaVit(QwenTower):
    """A subclass names transformers' modules, its tower and what is run of it."""

    without_adapter = ANOTHER
    package: str
    """Of the model under ``transformers.models``."""
    kind: str
    """Its vision_config's model type."""
    tower_prefix: str
    """What begins the tower's names in a checkpoint."""

    def settled(self) -> Any:
        whole = self.model.whole
        assert whole is not None, "chosen by its config"
        config = whole.vision_config
        patch = config.patch_size
        if not isinstance(patch, int):
            raise RequestError(
                f"model {self.model.name!r}: vision_config.patch_size {patch!r:.60}: a number, "
                "for its patches are squares"
            )
        if config.hidden_size % (4 * config.num_attention_heads):
            raise RequestError(
                f"model {self.model.name!r}: vision_config.hidden_size {config.hidden_size}: a "
                f"multiple of 4 for each of {config.num_attention_heads} heads, for rows and "
                "columns turn halves of a head"
            )
        return config

    def transformers(self, kind: str = "modeling") -> Any:
        """transformers' module of that kind."""
        return import_module(f"transformers.models.{self.package}.{kind}_{self.package}")

    @property
    def depth(self) -> int:
        """Layers of the tower."""
        return int(self.config.num_hidden_layers)

    def mlp_weights(self) -> int:
        return 2 * self.width * int(self.config.intermediate_size)

    @property
    def _pixels_a_patch(self) -> int:
        return int(self.config.num_channels * self.config.patch_size**2)

    @abstractmethod
    def encoder(self, tower: Any) -> Any:
        """The module of transformers' tower that has the layers."""

    @abstractmethod
    def projector(self) -> nn.Module:
        """transformers' adapter."""

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        module = self.transformers()
        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: getattr(module, self.model_class)(self.config))
        context.weigh_component("tower", tower, self.tower_prefix, self.kind)
        finish(tower, context)
        projector = context.create(self.projector)
        context.weigh_component("adapter", projector, "projector.", self.kind)
        batch = grids * context.cell.batch
        frames = self.frames(batch)
        for layer in self.encoder(tower).layers:
            layer.self_attn = PackedAttention(layer.self_attn, frames, True, module)
        return self.modules(Visual(tower, projector), context, batch)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        return torch.cat([self.still(image, num_frames) for image in images])
