"""DeepSeek-VL's tower and aligner: SigLIP's last hidden states through two layers."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.siglip import SigLIP
from workbench.visual.deepseek_vl import DeepseekVL as FrontEnd

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class DeepseekVL(SigLIP):
    """Squares of one size; every patch a token."""

    serves: ClassVar[Serves] = {"deepseek_vl": ("siglip_vision_model",)}
    front_end = "deepseek-vl"
    prefix = "vision_model."

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        _ = self.own_front  # Settings that make no sense are said first.

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' aligner."""
        from transformers.models.deepseek_vl.modeling_deepseek_vl import DeepseekVLAligner

        config: Any = SimpleNamespace(
            vision_config=SimpleNamespace(hidden_size=self.entry_width),
            text_config=SimpleNamespace(hidden_size=self.hidden),
        )
        aligner = context.create(lambda: DeepseekVLAligner(config))
        self.weigh_adapter(context, aligner, "aligner.", self.model_type)
        return aligner

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.deepseek_vl import image_processing_pil_deepseek_vl as module

        assert isinstance(self.front, FrontEnd)
        side = self.front.image_size
        return module.DeepseekVLImageProcessorPil(size={"height": side, "width": side})

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.entry_width


TOWERS.add("deepseek_vl", DeepseekVL)
