"""Janus's tower and aligner where it reads images: SigLIP's form, its last hidden states.

What makes images of tokens (a quantiser of pixels, its embeddings, aligner and head) is left out
with its parameters, whose number a flag says.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.configs import silent
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.squares import Squares
from workbench.visual.janus import Janus as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "janus_vision_model"
MODULE = "transformers.models.janus.modeling_janus"


class Features(nn.Module):
    """The tower's last hidden states."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels)
        hidden = self.tower.encoder(inputs_embeds=hidden).last_hidden_state
        normed: Tensor = self.tower.post_layernorm(hidden)
        return normed


class Janus(Squares):
    """Squares of one size; every patch a token."""

    serves: ClassVar[Serves] = {"janus": (KIND,)}
    unlisted = (MODULE, "JanusVisionModel")
    front_end = "janus"
    without_adapter = ANOTHER

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.depth, width = self.config.num_hidden_layers, self.config.projection_dim
        if width != self.hidden:
            raise RequestError(
                f"model {model.name!r}: vision_config.projection_dim {width}: its text model's "
                f"hidden_size is {self.hidden}"
            )
        self.image = Grid(1, self.side, self.side)

    @property
    def mlp_width(self) -> int:
        return int(self.config.hidden_size * self.config.mlp_ratio)

    @cached_property
    def flags(self) -> list[str]:
        from transformers.models.janus import modeling_janus as module

        vq: Any = self.whole.vq_config
        with torch.device("meta"), silent():
            parts = [
                module.JanusVQVAE(vq),
                nn.Embedding(vq.num_embeddings, vq.embed_dim),
                module.JanusVQVAEAlignerMLP(vq),
                module.JanusVQVAEHead(vq),
            ]
        count = sum(p.numel() for part in parts for p in part.parameters())
        return [
            f"tower: what makes images of tokens is left out, its {count:,} parameters too: "
            "images are read here, not made"
        ]

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows, grid.columns)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.janus import modeling_janus as module

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: module.JanusVisionModel(self.config))
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        places = torch.arange(self.image.patches, device=context.device)
        tower.embeddings.position_ids = places[None]
        context.weigh_component("tower", tower, "vision_model.", KIND)
        finish(tower, context)
        aligner = context.create(lambda: module.JanusVisionAlignerMLP(self.config))
        context.weigh_component("adapter", aligner, "aligner.", KIND)
        return Features(tower), aligner

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.janus import image_processing_pil_janus as module

        assert isinstance(self.front, FrontEnd)
        side = self.front.image_size
        return module.JanusImageProcessorPil(size={"height": side, "width": side})

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        behind = 2 * sum(map(self.tokens, grids)) * self.hidden**2
        return self.entry_flops(grids) + (self.config.depth - 1) * behind


TOWERS.add("janus", Janus)
