"""Idefics3's and SmolVLM's tower and connector: SigLIP over tiles, patches shuffled into tokens.

The two have classes of their own in transformers, equal but for their names.
"""

from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.squares import Tiles
from workbench.visual.idefics3 import Idefics3 as FrontEnd

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

PREFIXES = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}


class Features(nn.Module):
    """The tower's last hidden states.

    ``seen`` are the patches that its positions are made of: all, so that attention needs no mask.
    """

    def __init__(self, tower: Any, seen: Tensor) -> None:
        super().__init__()
        self.tower, self.seen = tower, seen

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels, patch_attention_mask=self.seen)
        hidden = self.tower.encoder(hidden, attention_mask=None).last_hidden_state
        return self.tower.post_layernorm(hidden)


class Idefics3(Tiles):
    """A tile, the whole image or a frame is an image of its own to the tower."""

    serves: ClassVar[Serves] = {
        "idefics3": ("idefics3_vision", "idefics3"),
        "smolvlm": ("smolvlm_vision", "smolvlm"),
    }
    front_end = "idefics3"
    without_adapter = (
        "keeps the width of SigLIP's features, but the tower of {tower.package} merges "
        "its patches into the decoder's width"
    )
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.package = self.whole.model_type
        self.depth = self.config.num_hidden_layers
        self.shuffle = self.whole.scale_factor
        self.patches_a_token = self.shuffle**2
        self.image = Grid(1, self.side, self.side)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.shuffle, grid.columns // self.shuffle)

    def from_transformers(self, name: str) -> Any:
        """A class of the model's own module."""
        module = import_module(f"transformers.models.{self.package}.modeling_{self.package}")
        return getattr(module, f"{PREFIXES[self.package]}{name}")

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: self.from_transformers("VisionTransformer")(self.config))
        context.weigh_component("tower", tower, "vision_model.", self.config.model_type)
        finish(tower, context)
        config: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            scale_factor=self.shuffle,
        )
        connector = context.create(lambda: self.from_transformers("Connector")(config))
        context.weigh_component("adapter", connector, "connector.", self.config.model_type)
        number = context.cell.batch * self._squares(grids)
        shape = number, self.side, self.side
        mask = context.keep(torch.ones(shape, dtype=torch.bool, device=context.device))
        return Features(tower, mask), connector

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.idefics3 import image_processing_pil_idefics3 as module

        return module.Idefics3ImageProcessorPil(
            size={"longest_edge": self.eye.longest_edge},
            max_image_size={"longest_edge": self.eye.image_size},
            do_image_splitting=self.eye.splits and not frames,
        )

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.adapter_flops(grids)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens, wide = sum(map(self.tokens, grids)), self.config.hidden_size * self.shuffle**2
        return 2 * tokens * self.hidden * wide


TOWERS.add("idefics3", Idefics3)
