"""SigLIP so400m/14 at 384 pixels and a two-layer MLP adapter: the towers of D-Attn's paper.

The tower's pooling head belongs to the checkpoint and feeds no token, so it is held, but neither
run nor trained: without a gradient it has nothing to step on, and no states.
What the paper leaves open, and what holds here: the adapter norms the tower's features before its
two layers, GELU between.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Tower, finish, implementation, vision_config
from workbench.lvlm.towers.glance import View, glance_flops, last_but_one
from workbench.lvlm.weights.random import randomise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

PUBLISHED = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""vision_config of config.json of google/siglip-so400m-patch14-384."""


class Adapter(nn.Module):
    """RMSNorm, then two layers from the tower's width to the decoder's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """[..., W] -> [..., D]."""
        return self.down(self.act(self.up(self.norm(features))))


class Features(nn.Module):
    """The last hidden states of a SigLIP tower."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches, width]."""
        return self.tower(pixels)[0]


class SigLIP(Tower):
    """Squares of one size, each token a patch that sees those of its image."""

    front_end = "siglip"
    widens = True
    model_type = "siglip_vision_model"
    prefix = "vision_tower."
    """What begins the names of its tensors in a checkpoint."""
    published: dict[str, Any] = PUBLISHED

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        from transformers import SiglipVisionConfig

        fields = vision_config(model, self.model_type, self.published)
        self.config = SiglipVisionConfig(**fields)
        self.hidden = model.config.hidden_size
        side = self.config.image_size // self.config.patch_size
        self.image = Grid(1, side, side)

    @property
    def flags(self) -> list[str]:
        if not self.model.stated or self.front_end != "siglip":
            return []
        own = self.model.stated.get("vision_config")
        if not isinstance(own, dict):
            return ["tower: the paper's SigLIP and adapter, for the model's config has none"]
        return [
            "tower: the paper's SigLIP and adapter, as asked, in place of the config's "
            f"{own.get('model_type')!r:.60}"
        ]

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        return self.tower(context), self.adapter(context) if adapter else None

    def tower(self, context: "Context") -> Features:
        """transformers' SigLIP, on the context's device and in its dtype."""
        from transformers import SiglipVisionModel

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: SiglipVisionModel(self.config))
        if tower.use_head:
            tower.head.requires_grad_(False)
            tower.use_head = False
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        places = torch.arange(self.image.patches, device=context.device)
        tower.embeddings.position_ids = places[None]
        context.weigh_component("tower", tower, self.prefix, self.model_type)
        finish(tower, context)
        return Features(tower)

    def view(self, module: nn.Module) -> View:
        tower: Any = module.tower
        return View(last_but_one(tower.encoder.layers).self_attn)

    def glance_flops(self, grids: tuple[Grid, ...], needs: Sequence[str]) -> int:
        images, width = sum(grid.steps for grid in grids), self.config.hidden_size
        return glance_flops(needs, images, self.image.patches, width)

    def adapter(self, context: "Context") -> nn.Module:
        """The paper's adapter."""
        projection = context.create(lambda: Adapter(self.entry_width, self.hidden))
        randomise(projection.norm)  # LLaVA's projector, whose two layers these are, has none.
        for layer, name in ((projection.up, "linear_1."), (projection.down, "linear_2.")):
            prefix = f"multi_modal_projector.{name}"
            self.weigh_adapter(context, layer, prefix, self.model_type, f"adapter's {name}*")
        if context.checkpoint() is not None:
            context.flags.append("weights: random in the adapter's norm: no checkpoint holds one")
        return projection

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        processor = self.processor()
        return torch.cat([processor(i, return_tensors="pt")["pixel_values"] for i in images])

    def processor(self) -> Any:
        """transformers' image processor under the published settings."""
        from transformers.models.siglip import image_processing_pil_siglip as module

        return module.SiglipImageProcessorPil(size=self._size)

    @property
    def _size(self) -> dict[str, int]:
        return {"height": self.config.image_size, "width": self.config.image_size}

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        side = self.config.image_size
        return batch * sum(grid.steps for grid in grids), 3, side, side

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = 3 * self.config.patch_size**2
        return 2 * sum(grid.patches for grid in grids) * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        patch = 2 * (4 * width**2 + 2 * width * mlp) + 4 * self.image.patches * width
        layers = self.config.num_hidden_layers * patch * sum(grid.patches for grid in grids)
        return self.patch_flops(grids) + layers

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.entry_width + self.hidden)


TOWERS.add("siglip", SigLIP)
