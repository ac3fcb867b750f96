"""ViP-LLaVA's tower and projector: five layers of CLIP side by side, normed, then two layers."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.llava import Llava

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class VipLlava(Llava):
    """LLaVA's squares; a token's features are those of several layers."""

    serves: ClassVar[Serves] = {"vipllava": ("clip_vision_model",)}
    several = True

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projector."""
        from transformers.models.vipllava.modeling_vipllava import VipLlavaMultiModalProjector

        config: Any = SimpleNamespace(
            vision_config=SimpleNamespace(hidden_size=self.entry_width),
            text_config=SimpleNamespace(hidden_size=self.hidden),
            vision_feature_layer=-1,
            projector_layernorm_eps=self.whole.projector_layernorm_eps,
            projector_hidden_act=self.whole.projector_hidden_act,
        )
        projection = context.create(lambda: VipLlavaMultiModalProjector(config))
        self.weigh_adapter(context, projection, "multi_modal_projector.", self.config.model_type)
        return projection

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 0  # A norm comes first.


TOWERS.add("vipllava", VipLlava)
