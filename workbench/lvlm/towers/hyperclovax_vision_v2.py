"""HyperCLOVA X's tower: Qwen2.5-VL's own, and a layer from its tokens to the decoder's width.

Positions are indices.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.layout import Layout
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.qwen2_5_vl import MODEL_TYPE, Qwen25VL

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Projected(nn.Module):
    """The tower's merger and transformers' projector."""

    def __init__(self, merger: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.merger, self.projector = merger, projector

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        tokens: Tensor = self.projector(self.merger(features))
        return tokens


class HyperClovaX(Qwen25VL):
    """Qwen2.5-VL's images and video, without M-RoPE."""

    serves: ClassVar[Serves] = {"hyperclovax_vision_v2": (MODEL_TYPE,)}
    front_end = "hyperclovax-vision"
    has_positions = False
    package = "qwen2_5_vl"
    prefix = "vision_model."

    def settled(self) -> Any:
        """As it is stated: the projector has the decoder's width."""
        assert self.model.whole is not None, "chosen by its config"
        return self.model.whole.vision_config

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        blocks, merger = super().modules(visual, context, grids)
        projector = context.create(lambda: nn.Linear(self.config.out_hidden_size, self.hidden))
        context.weigh_component("adapter", projector, "projector.", self.stated_kind)
        return blocks, Projected(merger, projector)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor | None:
        return None

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide, out = self.width * self.patches_a_token, self.config.out_hidden_size
        weights = wide * (wide + out) + out * self.hidden
        return 2 * sum(map(self.tokens, grids)) * weights


TOWERS.add("hyperclovax_vision_v2", HyperClovaX)
